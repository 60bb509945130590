# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes for tests: other users, processes that are killed, processes that must end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from klpfs.mounting import mounts

PATIENCE = 20.0


def become(uid: int) -> None:
    """Become another user, with only the group of the same number."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def in_a_child(function: Callable[[], Any], uid: int = 0) -> Any:
    """Run a function in a child process, as another user if given. Return its result or raise its error.

    The process is forked, as the other user may not be able to execute this Python.
    """
    here, there = Pipe()
    process = os.fork()
    if process == 0:
        try:
            if uid:
                become(uid)
            there.send((function(), None))
        except BaseException as raised:
            there.send((None, raised))
        finally:
            os._exit(0)
    there.close()
    try:
        assert here.poll(PATIENCE), "no answer"
        result, error = here.recv()
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        here.close()
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program. It is killed at the end of the block."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def is_blocked(blocked: subprocess.Popen[str]) -> bool:
    """Return whether a process waits for an answer of the mount."""
    return Path(f"/proc/{blocked.pid}/wchan").read_text() == "request_wait_answer"


def daemon_of(mountpoint: Path) -> int:
    """Return the process id of a mount's daemon."""
    mount = mounts.mount_at(str(mountpoint))
    assert mount is not None
    found = mounts.daemon_of(mount)
    assert found is not None
    return found


def gone(process_id: int) -> bool:
    """Return whether a process has ended."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Return whether a condition becomes true within a timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file of a mount that may end before the file is closed."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def errno_of(attempt: Callable[[], object]) -> str:
    """Return the name of the errno, or "success"."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "success"
