# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind a mount: how it starts, how it ends, how it is found.

A daemon is found by the device number of its mount: it listens on the abstract socket
``klpfs/<major>:<minor>``, and the peer credentials of that name its process. So there is no file to
go stale, and no trust in a number that somebody else may have now.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from klpfs.server import MakeTree

log = logging.getLogger(__name__)

TYPE = "fuse.klpfs"
PATIENCE = 10.0
"""Seconds to wait for a mount to answer, or for a daemon to end."""

_MNT_DETACH = 2


class MountError(Exception):
    """Mounting or unmounting did not work; the message is a sentence that says what to do."""


# What is mounted


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


# Starting


def serve(
    make_tree: MakeTree,
    mountpoint: Path,
    *,
    allow_other: bool = False,
    foreground: bool = False,
    log_file: Path | None = None,
    fsname: str = "klpfs",
) -> None:
    """Mount what ``make_tree`` makes.

    Returns once the mount answers, leaving a daemon behind that ends with the mount; with
    ``foreground``, serves in this process and returns after the unmount. The daemon logs to
    ``log_file``, or nowhere. Must be called outside of trio, and before any thread is started.

    Raises `MountError`. An exception of ``make_tree`` comes out as one too, with its text.
    """
    path = check(mountpoint)
    if foreground:
        from klpfs import server  # here, so that `klpfs umount` does without trio and libfuse

        server.run(make_tree, path, allow_other, fsname, ready=lambda: None)
    else:
        daemonize(make_tree, path, allow_other, fsname, log_file)
        answered(path)


def check(mountpoint: Path) -> str:
    """Whether something may be mounted there: the real path, or a `MountError`."""
    path = resolve(mountpoint)
    present = mount_at(path)
    try:
        mode = os.stat(path).st_mode
        os.statvfs(path)  # which no cache answers
    except FileNotFoundError:
        raise MountError(f"{mountpoint} does not exist; mkdir -p {mountpoint}") from None
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            remedy = f"klpfs umount {mountpoint}" if present else "unmount it"
            raise MountError(
                f"{mountpoint} is a mount whose daemon is gone; first {remedy}"
            ) from None
        raise MountError(f"{mountpoint}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise MountError(f"{mountpoint} is not a directory; give one to mount on")
    if present and present.type == TYPE:
        raise MountError(f"{mountpoint} is mounted already; first klpfs umount {mountpoint}")
    if not os.path.exists("/dev/fuse"):
        raise MountError(
            "there is no /dev/fuse; modprobe fuse, or, in a container, give it that device"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("there is no fusermount3, which users other than root need; install fuse3")
    return path


def answered(path: str) -> None:
    """Wait for the first answer."""
    try:
        os.statvfs(path)
    except OSError as error:
        raise MountError(f"{path} was mounted, but does not answer: {error.strerror}") from None


def daemonize(
    make_tree: MakeTree, path: str, allow_other: bool, fsname: str, log_file: Path | None
) -> None:
    """Run in a process of its own, session and all; returns once it is mounted."""
    # Opened here, so that a wrong name is an error the user sees.
    try:
        output = os.open(log_file or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise MountError(f"{log_file}: {error.strerror}") from None
    report, tell = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(report)
            os.setsid()
            if os.fork() == 0:
                _daemon(make_tree, path, allow_other, fsname, output, tell)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    os.close(output)
    os.waitpid(child, 0)
    with os.fdopen(report, "rb") as pipe:
        message = pipe.read().decode(errors="replace")
    if message != "mounted":
        raise MountError(message or "the daemon died before it had mounted anything")


def _daemon(
    make_tree: MakeTree, path: str, allow_other: bool, fsname: str, output: int, tell: int
) -> NoReturn:
    status = 0
    try:
        from klpfs import server

        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, descriptor)
        for descriptor in (null, output):
            if descriptor > 2:
                os.close(descriptor)
        # Whatever the caller had put in their place is not this process's to write to.
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        logging.basicConfig(
            format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
        )

        def ready() -> None:
            os.write(tell, b"mounted")
            os.close(tell)

        server.run(make_tree, path, allow_other, fsname, ready)
    except BaseException as error:
        status = 1
        if not isinstance(error, MountError) or error.__cause__:
            log.exception("the daemon of %s ends", path)
        with contextlib.suppress(OSError):  # told already
            os.write(tell, (str(error) or type(error).__name__).encode())
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


# Finding the daemon


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
        if os.geteuid() == 0:
            umount2(path, _MNT_DETACH if lazy else 0)
        else:
            fusermount(path, lazy)
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
