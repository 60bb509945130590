# SPDX-License-Identifier: GPL-2.0-or-later
"""A mount namespace that shows the guest's kernel in place of the host's.

Its mounts are invisible outside of it, and disappear with its last process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from klpfs.fs.procview import HOST
from klpfs.machine.elf import ElfError, ModuleImage
from klpfs.machine.host_names import RELEASE_MAX, is_host_name

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

_DATA_ONLY = MS_NOSUID | MS_NODEV | MS_NOEXEC
"""The flags of each mount that shows files of the guest, or files that klpfs makes."""

_HOST_CONTROLS = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""Files of the host's /proc that control its kernel. They are made read-only."""
_MODULES = "/lib/modules"

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(Exception):
    """The host does not allow the namespace or its mounts. The message says what is missing."""


def _raise_if_failed(result: int, path: str) -> None:
    """Raise the OSError of a libc call that returned ``result``."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _mount(source: str, target: str, kind: str | None, flags: int, *, data: str = "") -> None:
    """Call mount(2). Raise OSError."""
    _raise_if_failed(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), kind and kind.encode(), flags, data.encode()
        ),
        target,
    )


def _bind(source: str | Path, target: str | Path) -> None:
    """Bind ``source``, with all mounts below it, to ``target``."""
    _mount(str(source), str(target), None, MS_BIND | MS_REC)


def _show(source: Path, target: str) -> None:
    """Bind a file or directory of the guest to ``target``. Nothing in it can be executed."""
    _bind(source, target)
    _mount("none", target, None, MS_REMOUNT | MS_BIND | _DATA_ONLY)


def enter(machine: Path, root: int, modules: Iterable[Path]) -> None:
    """Move this process into a mount namespace that shows the machine mounted on ``machine``.

    The process must have only one thread.
    ``root``: a descriptor of the root of that machine, from `klpfs.mounting.mounts.open_machine`.
    ``modules``: directories whose modules appear in /lib/modules/RELEASE, where modprobe finds them.

    Raise `NamespaceError`.
    """
    try:
        _unshare()
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        # A descriptor from outside of the namespace cannot be the source of a mount.
        inside = os.open(machine, os.O_PATH | os.O_DIRECTORY)
        if not os.path.samestat(os.fstat(inside), os.fstat(root)):
            raise NamespaceError(f"something else is mounted on {machine} now")
        guest = Path(f"/proc/self/fd/{inside}")
        release = (guest / "proc/sys/kernel/osrelease").read_text(errors="surrogateescape").strip()
        if not is_host_name(release, RELEASE_MAX):
            raise NamespaceError(f"the machine's release {release!r} is not a valid directory name")
        if not os.path.exists("/dev/kmsg"):
            _add_entry("/dev", "kmsg", is_directory=False)
        _show(guest / "dev/kmsg", "/dev/kmsg")
        _show(guest / "sys", "/sys")
        _mount_modules(release, modules)
        _mount_proc(guest / "machine/procview")
        os.close(inside)
    except OSError as error:
        raise NamespaceError(
            f"cannot mount the guest's view on {error.filename or '/'}: {error.strerror}"
        ) from None


def _unshare() -> None:
    """Enter a new mount namespace, and, unless root may do that alone, a new user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _libc.unshare(CLONE_NEWNS) == 0:
        return
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        if uid == 0:
            raise NamespaceError(
                f"klpfs run needs a mount namespace: {os.strerror(number)}; a container needs the "
                "capability SYS_ADMIN for that"
            )
        why = {
            errno.EINVAL: "this kernel has no user namespaces (CONFIG_USER_NS)",
            errno.ENOSPC: "user.max_user_namespaces is reached",
        }.get(number, "this host allows it only to root")
        raise NamespaceError(f"klpfs run needs a mount namespace, but {why}; run it as root")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
    except OSError:
        raise NamespaceError(
            "klpfs run needs a mount namespace, but this host restricts user namespaces (perhaps by "
            "kernel.apparmor_restrict_unprivileged_userns); run it as root"
        ) from None


def _mount_proc(view: Path) -> None:
    """Mount ``view`` on /proc, and the host's procfs inside it."""
    host = view / HOST
    _bind("/proc", host)
    for name in _HOST_CONTROLS:
        if (host / name).exists():
            _bind(host / name, host / name)
            flags = os.statvfs(host / name).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
            _mount("none", str(host / name), None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    _show(view, "/proc")


def _add_entry(directory: str, name: str, *, is_directory: bool = True) -> None:
    """Add an entry to a directory that may be read-only.

    A tmpfs is mounted over it, and the previous entries are bound into that.
    """
    old = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        mode = stat.S_IMODE(os.stat(old).st_mode)
        before = f"/proc/self/fd/{old}"
        entries = sorted(os.listdir(before))
        _mount("klpfs", directory, "tmpfs", _DATA_ONLY, data=f"mode={mode:o}")
        for entry in entries:
            source, target = f"{before}/{entry}", f"{directory}/{entry}"
            kind = os.lstat(source).st_mode
            if stat.S_ISLNK(kind):
                os.symlink(os.readlink(source), target)
                continue
            _create(target, is_directory=stat.S_ISDIR(kind))
            _bind(source, target)
    finally:
        os.close(old)
    _create(f"{directory}/{name}", is_directory=is_directory)


def _create(path: str, *, is_directory: bool) -> None:
    """Create an empty directory or file."""
    if is_directory:
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def _mount_modules(release: str, directories: Iterable[Path]) -> None:
    """Mount a /lib/modules with the modules in ``directories``, and their index for modprobe(8)."""
    if not os.path.isdir(_MODULES):
        _add_entry(os.path.realpath(os.path.dirname(_MODULES)), os.path.basename(_MODULES))
    _mount("klpfs", os.path.realpath(_MODULES), "tmpfs", _DATA_ONLY, data="mode=755")
    kernel = Path(_MODULES, release)
    extra = kernel / "extra"
    extra.mkdir(parents=True)
    for directory in directories:
        # Links, so that a module that is built again is the one that is loaded.
        for module in sorted(directory.resolve().rglob("*.ko")):
            link = extra / module.name
            if is_host_name(module.name) and not link.is_symlink():
                link.symlink_to(module)
    for listing in ("modules.order", "modules.builtin"):
        (kernel / listing).touch()
    depmod = shutil.which("depmod", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if depmod is None:
        (kernel / "modules.dep").write_text(dependencies(sorted(extra.iterdir())))
    else:
        subprocess.run([depmod, "--", release], check=False, capture_output=True)


def dependencies(modules: list[Path]) -> str:
    """Return the text of ``modules.dep`` for modules in the directory ``extra``.

    For a modprobe without depmod, as busybox has it. Files that are not modules are left out.
    """
    direct: dict[str, list[str]] = {}
    files = {module.stem.replace("-", "_"): f"extra/{module.name}" for module in modules}
    for module in modules:
        try:
            depends = ModuleImage.parse(module.read_bytes()).modinfo.get("depends") or ""
        except (OSError, ElfError):
            continue
        direct[module.stem.replace("-", "_")] = [name for name in depends.split(",") if name]

    def transitive(name: str, seen: tuple[str, ...] = ()) -> Iterable[str]:
        for needed in direct.get(name, []):
            if needed not in seen and needed in files:
                yield needed
                yield from transitive(needed, (*seen, needed))

    lines = []
    for name in direct:
        needed = [files[other] for other in dict.fromkeys(transitive(name))]
        lines.append(" ".join([f"{files[name]}:", *needed]) + "\n")
    return "".join(lines)
