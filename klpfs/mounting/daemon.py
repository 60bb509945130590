# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounting: the process that serves a mount is started, in the background or in the foreground."""

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
from klpfs.terminal import LINES, printable

if TYPE_CHECKING:
    from klpfs.mounting.server import MakeTree

log = logging.getLogger(__name__)

_MOUNTED = b"mounted"
"""What the daemon reports if it has mounted; anything else is an error message."""


def serve(
    make_tree: MakeTree,
    mountpoint: Path,
    *,
    allow_other: bool = False,
    foreground: bool = False,
    log_file: Path | None = None,
) -> None:
    """Mount the tree that ``make_tree`` makes.

    Return when the mount answers, and leave a daemon behind that ends with the mount. It logs to
    ``log_file``, if one is given. With ``foreground``, serve in this process, and return after the
    unmount. Must be called outside of trio, and before any thread is started.

    Raise `MountError`, also for an exception of ``make_tree``, with its text.
    """
    path = check_mountpoint(mountpoint)
    if foreground:
        from klpfs.mounting import server  # not before the mount point is checked: it takes 0.2 s

        start_log()
        server.run(make_tree, path, allow_other, on_mounted=lambda: None)
    else:
        daemonize(make_tree, path, allow_other, log_file)
        wait_for_answer(path)


def check_mountpoint(mountpoint: Path) -> str:
    """Return the real path of a directory that can be mounted on. Raise `MountError` otherwise."""
    path = resolve(mountpoint)
    present = mount_at(path)
    try:
        mode = os.stat(path).st_mode
        os.statvfs(path)  # always asks the daemon: the kernel does not cache the answer
    except FileNotFoundError:
        raise MountError(
            f"{mountpoint} does not exist; create it with 'mkdir -p {mountpoint}'"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            remedy = f"run 'klpfs umount {mountpoint}' first" if present else "unmount it first"
            raise MountError(
                f"{mountpoint} is a mount whose daemon is no longer running; {remedy}"
            ) from None
        raise MountError(f"{mountpoint}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise MountError(f"{mountpoint} is not a directory")
    if present and present.type == TYPE:
        raise MountError(f"{mountpoint} is already mounted; run 'klpfs umount {mountpoint}' first")
    if not os.path.exists("/dev/fuse"):
        raise MountError(
            "/dev/fuse does not exist; run 'modprobe fuse' or pass the device to the container"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError(
            "fusermount3 is not installed, and only root can mount without it; install fuse3"
        )
    return path


def wait_for_answer(path: str) -> None:
    """Wait until a mount answers its first request. Raise `MountError` if that fails."""
    try:
        os.statvfs(path)
    except OSError as error:
        raise MountError(f"{path} is mounted but does not answer: {error.strerror}") from None


def daemonize(make_tree: MakeTree, path: str, allow_other: bool, log_file: Path | None) -> None:
    """Serve in a new process and session; return when it has mounted. Raise `MountError`."""
    # Opened here, so that the user sees the error if the name is wrong.
    try:
        output = os.open(log_file or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise MountError(f"{log_file}: {error.strerror}") from None
    status_read, status_write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        exit_status = 1
        try:
            os.close(status_read)
            os.setsid()
            if os.fork() == 0:
                _run_daemon(make_tree, path, allow_other, output=output, status=status_write)
            exit_status = 0
        finally:
            os._exit(exit_status)
    os.close(status_write)
    os.close(output)
    os.waitpid(child, 0)
    with os.fdopen(status_read, "rb") as pipe:
        message = pipe.read()
    if message != _MOUNTED:
        raise MountError(
            message.decode(errors="replace") or "the daemon died before it could mount"
        )


class _LogFormatter(logging.Formatter):
    """A format whose text is safe to print: guest data is in exceptions and their tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), LINES)


def start_log() -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)


def _run_daemon(
    make_tree: MakeTree, path: str, allow_other: bool, *, output: int, status: int
) -> NoReturn:
    """Serve until the mount ends, then exit.

    ``output`` becomes standard output and error. `_MOUNTED`, or the text of an error, is written to
    the pipe ``status``.
    """
    exit_status = 0
    try:
        from klpfs.mounting import server

        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, descriptor)
        for descriptor in (null, output):
            if descriptor > 2:
                os.close(descriptor)
        # The caller may have replaced sys.stdout and sys.stderr, as pytest does.
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        start_log()

        def report_mounted() -> None:
            os.write(status, _MOUNTED)
            os.close(status)

        server.run(make_tree, path, allow_other, report_mounted)
    except BaseException as error:
        exit_status = 1
        if not isinstance(error, MountError) or error.__cause__:
            log.exception("the daemon of %s ends", path)
        with contextlib.suppress(OSError):  # closed, if it was mounted
            os.write(status, (str(error) or type(error).__name__).encode())
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(exit_status)
