# SPDX-License-Identifier: GPL-2.0-or-later
"""How a mount starts: a process that serves it, in the background or in this one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from klpfs.mounting.mounts import TYPE, MountError, mount_at, resolve

if TYPE_CHECKING:
    from klpfs.mounting.server import MakeTree

log = logging.getLogger(__name__)


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
    path = check_mountpoint(mountpoint)
    if foreground:
        from klpfs.mounting import (
            server,  # here: not before it is known that something can be mounted
        )

        server.run(make_tree, path, allow_other, fsname, ready=lambda: None)
    else:
        daemonize(make_tree, path, allow_other, fsname, log_file)
        answered(path)


def check_mountpoint(mountpoint: Path) -> str:
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
        from klpfs.mounting import server

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
