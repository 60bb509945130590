# SPDX-License-Identifier: GPL-2.0-or-later
"""What is mounted, which process is behind it, and how it is taken away.

A daemon is found by the device number of its mount: it listens on the abstract socket
``klpfs/<major>:<minor>``, and the peer credentials of that name its process. So there is no file to
go stale, and no trust in a number that somebody else may have now.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

TYPE = "fuse.klpfs"
PATIENCE = 10.0
"""Seconds to wait for a daemon to end."""

_MNT_DETACH = 2


class MountError(Exception):
    """Mounting or unmounting did not work; the message is a sentence that says what to do."""


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    device: str
    path: str
    type: str


def mounts() -> list[Mount]:
    """All mounts of this mount namespace, in order: of two on one path, the later one shows."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            kind = fields[fields.index("-", 6) + 1]
            found.append(Mount(fields[2], unescape(fields[4]), kind))
    return found


def unescape(text: str) -> str:
    r"""Undo the octal escapes of mountinfo (``\040`` for a space)."""
    raw = os.fsencode(text)
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw))


def mount_at(path: str) -> Mount | None:
    """What is mounted on a path (absolute, without symbolic links)."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def find_mounts() -> list[Path]:
    """The mount points of all klpfs mounts, dead ones too."""
    return [Path(mount.path) for mount in mounts() if mount.type == TYPE]


def resolve(mountpoint: Path) -> str:
    """The path as mountinfo has it; a dead mount is not an error."""
    path = os.path.abspath(mountpoint)
    return path if mount_at(path) else os.path.realpath(path)


# The process behind it


def socket_name(mount: Mount) -> bytes:
    return b"\0klpfs/" + mount.device.encode()


def daemon_of(mount: Mount) -> int | None:
    """The process behind a mount, or None if there is none (or it is another user's)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(0)
        try:
            client.connect(socket_name(mount))
        except OSError:
            return None
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    process, uid, _ = struct.unpack("iii", credentials)
    trusted = os.geteuid() == 0 or uid in (0, os.geteuid())
    return process if process and trusted else None


# Ending


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Take a mount away, and wait until it and its daemon are gone.

    Works for a mount whose daemon died. ``lazy`` does not mind open files: their owners get
    ENOTCONN.

    Raises `OSError` (EBUSY while files are open, EPERM) or `MountError`.
    """
    path = resolve(mountpoint)
    mount = mount_at(path)
    if mount is None or mount.type != TYPE:
        raise MountError(f"{mountpoint} is not a klpfs mount; see findmnt -t {TYPE}")
    daemon = daemon_of(mount)
    process = None
    if daemon is not None:
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(daemon)
    try:
        detach(path, lazy=lazy)
        if process is not None:
            if lazy:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGTERM)
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if not poll.poll(PATIENCE * 1000):
                raise MountError(
                    f"{mountpoint} is unmounted, but its daemon, process {daemon}, goes on; "
                    f"kill -9 {daemon}"
                )
    finally:
        if process is not None:
            os.close(process)


def detach(path: str, *, lazy: bool) -> None:
    """Take a mount out of this namespace, as whoever may. Raises as `unmount`."""
    if os.geteuid() == 0:
        umount2(path, _MNT_DETACH if lazy else 0)
    else:
        fusermount(path, lazy)


def umount2(path: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def fusermount(path: str, lazy: bool) -> None:
    """Unmount as a user other than root."""
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", path]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
        )
    except FileNotFoundError:
        raise MountError("there is no fusermount3; install fuse3") from None
    if done.returncode != 0:
        for number in (errno.EBUSY, errno.EPERM):
            if os.strerror(number) in done.stderr:
                raise OSError(number, os.strerror(number), path)
        raise MountError(done.stderr.strip() or f"fusermount3 could not unmount {path}")
