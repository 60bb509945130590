# SPDX-License-Identifier: GPL-2.0-or-later
"""A mount namespace in which the host's kernel looks like the guest's.

Nothing of it is seen outside, and it is gone with the last process that is in it.
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

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18

_HOST_CONTROLS = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""Files of the host's /proc through which its kernel is told what to do: for reading only."""
_MODULES = "/lib/modules"

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(Exception):
    """The host does not let us; the message is a sentence that says what it does not let."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), kind and kind.encode(), flags, data.encode()
        ),
        target,
    )


def _bind(source: str | Path, target: str | Path) -> None:
    """Show ``source``, with all that is mounted in it, at ``target`` as well."""
    _mount(str(source), str(target), None, MS_BIND | MS_REC)


def enter(machine: Path, modules: Iterable[Path]) -> None:
    """Move this process, which has one thread, into the view of the machine mounted on ``machine``.

    ``modules``: directories whose modules will be in /lib/modules/RELEASE, and can be loaded by name.

    Raises `NamespaceError`.
    """
    try:
        _unshare()
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        release = (machine / "proc/sys/kernel/osrelease").read_text().strip()
        if not os.path.exists("/dev/kmsg"):
            _extend("/dev", "kmsg", is_directory=False)
        _bind(machine / "dev/kmsg", "/dev/kmsg")
        _show_modules(release, modules)
        _show_proc(machine / "machine/procview")
        _bind(machine / "sys", "/sys")
    except OSError as error:
        raise NamespaceError(
            f"cannot show the guest on {error.filename or '/'}: {error.strerror}"
        ) from None


def _unshare() -> None:
    """A mount namespace of our own: as root, or as the root of a user namespace of our own."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _libc.unshare(CLONE_NEWNS) == 0:
        return
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        if uid == 0:
            raise NamespaceError(
                f"klpfs run needs a mount namespace: {os.strerror(number)}; in a container, that "
                "takes the capability SYS_ADMIN"
            )
        why = {
            errno.EINVAL: "this kernel has no user namespaces (CONFIG_USER_NS)",
            errno.ENOSPC: "user.max_user_namespaces does not allow one more",
        }.get(number, "this host lets only root have one")
        raise NamespaceError(f"klpfs run needs a mount namespace, and {why}; run it as root")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
    except OSError:
        raise NamespaceError(
            "klpfs run needs a mount namespace, and this host takes the privileges of a user "
            "namespace away (kernel.apparmor_restrict_unprivileged_userns?); run it as root"
        ) from None


def _show_proc(view: Path) -> None:
    host = view / HOST
    _bind("/proc", host)
    for name in _HOST_CONTROLS:
        if (host / name).exists():
            _bind(host / name, host / name)
            flags = os.statvfs(host / name).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
            _mount("none", str(host / name), None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    _bind(view, "/proc")


def _extend(directory: str, name: str, *, is_directory: bool = True) -> None:
    """Let ``directory`` have one more entry: in its place comes a tmpfs in which everything it had is
    bound."""
    old = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        mode = stat.S_IMODE(os.stat(old).st_mode)
        before = f"/proc/self/fd/{old}"
        entries = sorted(os.listdir(before))
        _mount("klpfs", directory, "tmpfs", MS_NOSUID, f"mode={mode:o}")
        for entry in entries:
            source, target = f"{before}/{entry}", f"{directory}/{entry}"
            kind = os.lstat(source).st_mode
            if stat.S_ISLNK(kind):
                os.symlink(os.readlink(source), target)
                continue
            _touch(target, stat.S_ISDIR(kind))
            _bind(source, target)
    finally:
        os.close(old)
    _touch(f"{directory}/{name}", is_directory)


def _touch(path: str, directory: bool) -> None:
    if directory:
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def _show_modules(release: str, directories: Iterable[Path]) -> None:
    """/lib/modules, with one kernel in it, and an index of its modules for modprobe(8)."""
    if not os.path.isdir(_MODULES):
        _extend(os.path.realpath(os.path.dirname(_MODULES)), os.path.basename(_MODULES))
    _mount("klpfs", os.path.realpath(_MODULES), "tmpfs", MS_NOSUID, "mode=755")
    kernel = Path(_MODULES, release)
    extra = kernel / "extra"
    extra.mkdir(parents=True)
    for directory in directories:
        # Links, so that what is built anew is what will be loaded.
        for module in sorted(directory.resolve().rglob("*.ko")):
            link = extra / module.name
            if not link.exists():
                link.symlink_to(module)
    for listing in ("modules.order", "modules.builtin"):
        (kernel / listing).touch()
    depmod = shutil.which("depmod", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if depmod is None:
        (kernel / "modules.dep").write_text(dependencies(sorted(extra.iterdir())))
    else:
        subprocess.run([depmod, release], check=False, capture_output=True)


def dependencies(modules: list[Path]) -> str:
    """``modules.dep`` for modules that lie in ``extra``, for a modprobe that comes without depmod
    (busybox). Whatever is no module is left out."""
    needs: dict[str, list[str]] = {}
    files = {module.stem.replace("-", "_"): f"extra/{module.name}" for module in modules}
    for module in modules:
        try:
            depends = ModuleImage.parse(module.read_bytes()).modinfo.get("depends") or ""
        except (OSError, ElfError):
            continue
        needs[module.stem.replace("-", "_")] = [name for name in depends.split(",") if name]

    def all_needs(name: str, seen: tuple[str, ...] = ()) -> Iterable[str]:
        for need in needs.get(name, []):
            if need not in seen and need in files:
                yield need
                yield from all_needs(need, (*seen, need))

    return "".join(
        " ".join([f"{files[name]}:", *(files[need] for need in dict.fromkeys(all_needs(name)))])
        + "\n"
        for name in needs
    )
