# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts: how they and their daemons are found, and how they are unmounted.

A daemon is found by the device number of its mount. It listens on the abstract socket
``klpfs/<major>:<minor>``, whose peer credentials have its process id. So there is no pid file that
could be stale, and no pid that another process may have got since.
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
import threading
from pathlib import Path
from typing import NamedTuple

TYPE = "fuse.klpfs"
ANSWER_TIMEOUT = 1.0
"""Seconds after which a daemon that does not answer is taken for one that hangs."""
_TERM_AFTER, _KILL_AFTER = 1.5, 3.5
"""Seconds after the unmount, or after SIGTERM, when a daemon that still runs gets a signal."""
_DEATH_TIMEOUT = 5.0
"""Seconds that the kernel may take to end a killed process."""

_MNT_DETACH = 2


class MountError(Exception):
    """Mounting or unmounting failed. The message says why, and what to do about it."""


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    device: str
    path: str
    type: str
    id: int
    owner: int | None
    """The user id in the options of a FUSE mount."""


def mounts() -> list[Mount]:
    """Return all mounts of this mount namespace. Of two on one path, the later one is visible."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            kind, _source, options = fields[fields.index("-", 6) + 1 :][:3]
            user = re.search(r"\buser_id=(\d+)", options)
            owner = int(user[1]) if user else None
            found.append(Mount(fields[2], unescape(fields[4]), kind, int(fields[0]), owner))
    return found


def unescape(text: str) -> str:
    r"""Undo the octal escapes of mountinfo (``\040`` for a space)."""
    raw = os.fsencode(text)
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw))


def mount_at(path: str) -> Mount | None:
    """Return the visible mount on a path (absolute, without symbolic links), or None."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def find_mounts() -> list[Path]:
    """Return the mount points of all klpfs mounts, including those whose daemon is gone."""
    return [Path(mount.path) for mount in mounts() if mount.type == TYPE]


def mount_of(descriptor: int) -> Mount | None:
    """Return the mount that an open file or directory is on, or None if it is detached."""
    with open(f"/proc/self/fdinfo/{descriptor}") as lines:
        number = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    return next((mount for mount in mounts() if mount.id == number), None)


def open_machine(path: Path) -> int:
    """Return a descriptor (O_PATH) of the root directory of the machine that is mounted on ``path``.

    The mount is found by the descriptor, not by its path, which might lead elsewhere meanwhile.

    Raise `MountError` if no machine is mounted there, or if it belongs to another user, who could make
    it anything.
    """
    none = MountError(f"no machine is mounted on {path}; run 'klpfs mount {path}'")
    try:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        raise none from None
    try:
        mount = mount_of(descriptor)
        if mount is None or mount.type != TYPE:
            raise none
        if os.readlink(f"/proc/self/fd/{descriptor}") != mount.path:
            raise none
        if mount.owner not in callers_ids():
            raise MountError(f"the machine on {path} belongs to another user (uid {mount.owner})")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def callers_ids() -> set[int]:
    """Return the user ids of the caller, in its own user namespace and in the one around it.

    A mount has that of the namespace in which it was made.
    """
    uid = os.geteuid()
    found = {uid}
    with open("/proc/self/uid_map") as lines:
        for inside, outside, count in (map(int, line.split()) for line in lines):
            if inside <= uid < inside + count:
                found.add(outside + uid - inside)
    return found


def resolve(mountpoint: Path) -> str:
    """Return the path as mountinfo has it, also for a mount whose daemon is gone."""
    path = os.path.abspath(mountpoint)
    return path if mount_at(path) else os.path.realpath(path)


# -- daemons --------------------------------------------------------------------------------------


def socket_name(mount: Mount) -> bytes:
    """Return the name of the abstract socket on which the daemon of a mount listens."""
    return b"\0klpfs/" + mount.device.encode()


def daemon_of(mount: Mount) -> int | None:
    """Return the pid of the daemon of a mount, or None if there is none that we may trust.

    A daemon is trusted if it runs as root or as the same user.
    """
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


# -- unmounting -----------------------------------------------------------------------------------


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount, and wait until the mount and its daemon are gone. Also if the daemon was killed.

    With ``lazy``, unmount even if files are open; further operations on them fail with ENOTCONN. A
    mount whose daemon hangs is always unmounted in this way, and the daemon is killed.

    Raise `OSError` (EBUSY while files are open, EPERM) or `MountError`.
    """
    path = resolve(mountpoint)
    mount = mount_at(path)
    if mount is None or mount.type != TYPE:
        raise MountError(
            f"{mountpoint} is not a klpfs mount; run 'findmnt -t {TYPE}' to list klpfs mounts"
        )
    daemon = daemon_of(mount)
    process = None
    if daemon is not None:
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(daemon)
    try:
        try:
            detach(path, lazy=lazy)
        except OSError as error:
            if error.errno != errno.EBUSY or process is None or answers(path):
                raise
            lazy = True
            detach(path, lazy=lazy)
        if process is not None and not end_process(process, now=lazy):
            raise MountError(
                f"{mountpoint} is unmounted, but its daemon (process {daemon}) still runs; "
                f"end it with 'kill -9 {daemon}'"
            )
    finally:
        if process is not None:
            os.close(process)


def answers(path: str) -> bool:
    """Return whether the daemon of a mount answers within `ANSWER_TIMEOUT`."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            os.statvfs(path)  # always asks the daemon: the kernel does not cache the answer
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(ANSWER_TIMEOUT)


def end_process(process: int, *, now: bool) -> bool:
    """Wait until a daemon (a pidfd) has ended, and help it with signals; with ``now``, at once.

    Return False if even SIGKILL does not end it.
    """
    poll = select.poll()
    poll.register(process, select.POLLIN)
    steps = ((0 if now else _TERM_AFTER, signal.SIGTERM), (_KILL_AFTER, signal.SIGKILL))
    for seconds, number in steps:
        if poll.poll(seconds * 1000):
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(process, number)
    return bool(poll.poll(_DEATH_TIMEOUT * 1000))


def detach(path: str, *, lazy: bool) -> None:
    """Remove a mount from this namespace, as root or through fusermount3. Raises like `unmount`."""
    if os.geteuid() == 0:
        umount2(path, _MNT_DETACH if lazy else 0)
    else:
        fusermount(path, lazy=lazy)


def umount2(path: str, flags: int) -> None:
    """Call umount2(2). Raise `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def fusermount(path: str, *, lazy: bool) -> None:
    """Unmount as a user other than root. Raise `OSError` (EBUSY or EPERM) or `MountError`."""
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", path]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
        )
    except FileNotFoundError:
        raise MountError("fusermount3 is not installed; install fuse3") from None
    if done.returncode != 0:
        for number in (errno.EBUSY, errno.EPERM):
            if os.strerror(number) in done.stderr:
                raise OSError(number, os.strerror(number), path)
        raise MountError(done.stderr.strip() or f"fusermount3 could not unmount {path}")
