# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations on a mounted machine, for commands and tests. They use nothing but its files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from klpfs.mounting.mounts import TYPE, MountError, callers_ids, mounts, open_machine

_RECORD = re.compile(rb"(\d+),(\d+),(\d+),[^;]*;(.*)", re.DOTALL)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_RECORD_BYTES = 8192
_MODULE = re.compile(
    r"(.*?) (\d+) (-?\d+|-) (-|.*?,) (?:Live|Loading|Unloading|Unknown) 0x[0-9a-f]+(?: \([^)\n]*\))?\n",
    re.DOTALL,
)
"""A line of proc/modules (``m_show``, kernel/module/procfs.c). Names may contain anything but NUL."""


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


class NoMachine(Exception):
    """No mount was found, or several. The message says what to do about it."""


def machines() -> list[Path]:
    """Return the klpfs mounts that belong to this user and answer."""
    ids = callers_ids()
    found = [Path(mount.path) for mount in mounts() if mount.type == TYPE and mount.owner in ids]
    return [path for path in found if _answers(path)]


def _answers(mount: Path) -> bool:
    """Return whether a machine is mounted there and answers to this user."""
    try:
        os.statvfs(mount)  # always asks the daemon: the kernel does not cache the answer
    except OSError:
        return False
    return os.path.isdir(mount / "machine")


def find_machine(given: str | None) -> Path:
    """Return the mount point ``given``, or else that of ``$KLPFS_MOUNT``, or else the only one.

    Raise NoMachine if there is none that belongs to this user, or if there are several.
    """
    path = given or os.environ.get("KLPFS_MOUNT")
    if path:
        try:
            os.close(open_machine(Path(path)))
        except MountError as error:
            raise NoMachine(str(error)) from None
        if not _answers(Path(path)):
            raise NoMachine(f"no machine is mounted on {path}; run 'klpfs mount {path}'")
        return Path(path)
    found = machines()
    if not found:
        raise NoMachine("no machine is mounted; run 'klpfs mount DIRECTORY'")
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise NoMachine(
            f"several machines are mounted ({names}); choose one with -m or $KLPFS_MOUNT"
        )
    return found[0]


def _write(path: Path, data: bytes) -> None:
    """Write ``data`` with one open(2) and one close(2). Raise OSError for any error, also of close(2)."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)


def insmod(
    machine: Path, module: bytes, parameters: Sequence[str] = (), *, force: bool = False
) -> None:
    """Load a module. Raise OSError with the kernel's errno.

    ``module``: the contents of the .ko file. ``parameters``: strings ``name=value``.
    ``force``: ignore the version magic and the symbol versions.
    """
    words = (["-f"] if force else []) + [_quoted(parameter) for parameter in parameters]
    header = (" ".join(words) + "\n").encode() if words else b""
    _write(machine / "machine/insmod", header + module)


def _quoted(parameter: str) -> str:
    """Quote the value of a parameter if it contains white space, as insmod(8) does."""
    name, equals, value = parameter.partition("=")
    return (
        f'{name}="{value}"'
        if equals and re.search(r"\s", value) and '"' not in value
        else parameter
    )


def rmmod(machine: Path, name: str, *, force: bool = False) -> None:
    """Unload a module, given by its name or its file. Raise OSError with the kernel's errno."""
    _write(machine / "machine/rmmod", f"{'-f ' if force else ''}{_modname(name)}".encode())


def holders(machine: Path, name: str) -> list[str]:
    """Return the names of the modules that use a module."""
    try:
        return sorted(os.listdir(machine / "sys/module" / _modname(name) / "holders"))
    except FileNotFoundError:
        return []


def _modname(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".ko").replace("-", "_")


class Module(NamedTuple):
    """A loaded module: its name, size in bytes, reference count, and the modules that use it."""

    name: str
    size: int
    refcount: str
    users: list[str]


def lsmod(machine: Path) -> list[Module]:
    """Return the loaded modules, the last one first."""
    text = _decode((machine / "proc/modules").read_bytes())
    return [
        Module(name, int(size), count, [
            user for user in users.split(",") if user not in ("", "-", "[permanent]")
        ])
        for name, size, count, users in _MODULE.findall(text)
    ]  # fmt: skip


def clear_log(machine: Path) -> None:
    """Clear the log, like ``dmesg -C``."""
    _write(machine / "machine/syslog", b"clear")


def dmesg(machine: Path) -> str:
    """Return the log since the last clear, in the format of ``dmesg``."""
    lines = (machine / "machine/syslog").read_bytes().split(b"\n")
    return _decode(b"\n".join(line.partition(b">")[2] for line in lines))


def follow(machine: Path) -> Iterator[str]:
    """Yield each line of the log since the last clear, and wait for more, without end."""
    from klpfs.fs.devfs import SEEK_TO_DATA  # here, because it imports the whole machine

    descriptor = os.open(machine / "dev/kmsg", os.O_RDONLY)
    try:
        os.lseek(descriptor, SEEK_TO_DATA, os.SEEK_SET)
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # records were overwritten: continue with the oldest one
            found = _RECORD.match(record)
            if found:
                seconds, rest = divmod(int(found[3]), 1_000_000)
                text = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), found[4].split(b"\n")[0])
                for line in text.split(b"\n"):
                    yield f"[{seconds:5d}.{rest:06d}] {_decode(line)}\n"
    finally:
        os.close(descriptor)
