# SPDX-License-Identifier: GPL-2.0-or-later
"""The client side: what commands and tests do to a mounted machine, through its files alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from klpfs.mounting.mounts import find_mounts

_RECORD = re.compile(rb"(\d+),(\d+),(\d+),[^;]*;(.*)", re.DOTALL)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_RECORD_BYTES = 8192


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


class NoMachine(Exception):
    """It is not clear which mount is meant; the message says what to do."""


def machines() -> list[Path]:
    """The mounts that answer, and answer us: not those of other users."""
    return [mount for mount in find_mounts() if _answers(mount)]


def _answers(mount: Path) -> bool:
    try:
        os.statvfs(mount)  # which no cache answers
    except OSError:
        return False
    return os.path.isdir(mount / "machine")


def find_machine(given: str | None) -> Path:
    """The mount that a command means: ``given``, else ``$KLPFS_MOUNT``, else the only one.

    Raises NoMachine.
    """
    path = given or os.environ.get("KLPFS_MOUNT")
    if path:
        if not _answers(Path(path)):
            raise NoMachine(f"no machine is mounted on {path}; klpfs mount {path}")
        return Path(path)
    mounts = machines()
    if not mounts:
        raise NoMachine("no machine is mounted; klpfs mount DIRECTORY")
    if len(mounts) > 1:
        names = ", ".join(str(mount) for mount in mounts)
        raise NoMachine(
            f"several machines are mounted ({names}); say which with -m or $KLPFS_MOUNT"
        )
    return mounts[0]


def _write(path: Path, data: bytes) -> None:
    """One open, all of ``data``, one close, whose error counts."""
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
    """Load a module. Raises OSError with the kernel's errno."""
    words = (["-f"] if force else []) + [_quoted(parameter) for parameter in parameters]
    header = (" ".join(words) + "\n").encode() if words else b""
    _write(machine / "machine/insmod", header + module)


def _quoted(parameter: str) -> str:
    """A parameter whose value has blanks, as insmod(8) hands it over."""
    name, equals, value = parameter.partition("=")
    return (
        f'{name}="{value}"'
        if equals and re.search(r"\s", value) and '"' not in value
        else parameter
    )


def rmmod(machine: Path, name: str, *, force: bool = False) -> None:
    """Unload a module by its name, or that of its file. Raises OSError with the kernel's errno."""
    _write(machine / "machine/rmmod", f"{'-f ' if force else ''}{_modname(name)}".encode())


def holders(machine: Path, name: str) -> list[str]:
    """The modules that use a module."""
    try:
        return sorted(os.listdir(machine / "sys/module" / _modname(name) / "holders"))
    except FileNotFoundError:
        return []


def _modname(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".ko").replace("-", "_")


def clear_log(machine: Path) -> None:
    """What ``dmesg -C`` does."""
    _write(machine / "machine/syslog", b"clear")


def dmesg(machine: Path) -> str:
    """The log from the last clear on, as ``dmesg`` prints it."""
    lines = (machine / "machine/syslog").read_bytes().split(b"\n")
    return _text(b"\n".join(line.partition(b">")[2] for line in lines))


def follow(machine: Path) -> Iterator[str]:
    """The log from the last clear on, and then each record as it comes, without end."""
    from klpfs.fs.devfs import SEEK_TO_DATA  # here: it brings the whole machine

    descriptor = os.open(machine / "dev/kmsg", os.O_RDONLY)
    try:
        os.lseek(descriptor, SEEK_TO_DATA, os.SEEK_SET)
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # some were overwritten: go on with the next
            found = _RECORD.match(record)
            if found:
                seconds, rest = divmod(int(found[3]), 1_000_000)
                text = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), found[4].split(b"\n")[0])
                for line in text.split(b"\n"):
                    yield f"[{seconds:5d}.{rest:06d}] {_text(line)}\n"
    finally:
        os.close(descriptor)
