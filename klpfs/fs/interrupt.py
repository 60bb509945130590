# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals for callers: an operation that takes long ends when its caller has a signal to take.

The kernel tells a FUSE server of signals by FUSE_INTERRUPT, which pyfuse3 does not pass on; until
it is answered, the caller cannot even be killed. So while an operation is pending for longer than
`PERIOD`, the state of the threads that may be waiting for it is looked up in /proc. Nothing runs
while nothing is pending.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import trio

PERIOD = 0.1
"""Seconds an operation may take before its caller is looked at, and between two looks."""


class Thread(NamedTuple):
    """A thread of some process, by the numbers /proc knows them by."""

    process: int
    id: int


class Interruptible:
    """The block of one operation: cancelled, and turned into EINTR, if its caller is signalled."""

    __slots__ = ("_owner", "closing", "ino", "pid", "scope", "since", "waiters")

    def __init__(self, owner: Interrupts, pid: int, ino: int, closing: bool) -> None:
        self._owner = owner
        self.pid = pid
        self.ino = ino
        self.closing = closing
        self.scope = trio.CancelScope()
        self.since = 0.0
        self.waiters: list[Thread] | None = None  # not looked for yet

    def __enter__(self) -> None:
        self.scope.__enter__()
        self._owner.begin(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner.end(self)
        self.scope.__exit__(kind, error, traceback)
        if self.scope.cancelled_caught:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


class Interrupts:
    """All pending operations, and the task that looks after those that take long."""

    def __init__(self) -> None:
        self._pending: dict[Interruptible, None] = {}
        self._work = trio.Event()

    def operation(self, pid: int, ino: int, *, closing: bool = False) -> Interruptible:
        """A block (``with``) for one operation of thread ``pid`` on the open file ``ino``.

        A file may be read by another process than the one that opened it; ``pid`` is the latter.
        With ``closing`` the operation is part of close(2), and its descriptor is no more.
        Raises `InterruptedError` at the end of the block if a signal cut it short.
        """
        return Interruptible(self, pid, ino, closing)

    def begin(self, operation: Interruptible) -> None:
        operation.since = trio.current_time()
        self._pending[operation] = None
        self._work.set()

    def end(self, operation: Interruptible) -> None:
        del self._pending[operation]

    async def run(self) -> None:
        """Look after pending operations until cancelled."""
        while True:
            await self._work.wait()
            # A great many readers may wait at once: looking at them must not become the main work.
            await trio.sleep(max(PERIOD, len(self._pending) / 1000))
            if not self._pending:
                self._work = trio.Event()
                continue
            late = trio.current_time() - PERIOD
            for operation in [each for each in self._pending if each.since <= late]:
                if operation.waiters is None:
                    if operation.closing:
                        operation.waiters = closers(operation.pid)
                    else:
                        operation.waiters = await waiters(operation.pid, operation.ino)
                if any(map(has_signal, operation.waiters)):
                    operation.scope.cancel()
                await trio.lowlevel.checkpoint()


async def waiters(opener: int, ino: int) -> list[Thread]:
    """The threads that wait for a file of ours: the opener's, or those of others that got it."""
    process = thread_group(opener)
    if process is not None:
        if holds(process, ino) is None:  # another user's: all one may see is its signals
            return [Thread(process, opener)]
        if found := waiting(process, ino):
            return found
    return await trio.to_thread.run_sync(
        lambda: [thread for other in processes() for thread in waiting(other, ino)]
    )


def closers(opener: int) -> list[Thread]:
    """The threads that may be closing a file of ours: those of the opener's process."""
    process = thread_group(opener)
    if process is None:
        return []
    return [thread for thread in threads(process) if sleeps_in(thread) in _WAITS]


def waiting(process: int, ino: int) -> list[Thread]:
    """The threads of a process that wait for an answer of FUSE, if it has the file at all."""
    if not holds(process, ino):
        return []
    return [thread for thread in threads(process) if sleeps_in(thread) in _WAITS]


_WAITS = ("request_wait_answer", "0", "")
"""Where a thread sleeps (fs/fuse/dev.c), or what is said of it where nobody may know."""


def sleeps_in(thread: Thread) -> str:
    try:
        with open(f"/proc/{thread.process}/task/{thread.id}/wchan") as name:
            return name.read()
    except OSError:
        return ""


def status(thread: Thread) -> dict[str, str]:
    """The fields of /proc/<process>/task/<thread>/status; none if it is gone."""
    try:
        with open(f"/proc/{thread.process}/task/{thread.id}/status") as lines:
            fields = (line.partition(":") for line in lines)
            return {name: value.strip() for name, _, value in fields}
    except OSError:
        return {}


def has_signal(thread: Thread) -> bool:
    """Whether a sleeping thread has a signal pending that it neither blocks nor ignores."""
    fields = status(thread)
    if not fields or fields["State"][0] not in "SD":
        return False
    pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return bool(pending & ~int(fields["SigBlk"], 16) & ~int(fields["SigIgn"], 16))


def thread_group(thread: int) -> int | None:
    """The process a thread is of, or None if it is gone."""
    group = status(Thread(thread, thread)).get("Tgid") if thread else None
    return int(group) if group else None


def processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def threads(process: int) -> list[Thread]:
    try:
        return [Thread(process, int(name)) for name in os.listdir(f"/proc/{process}/task")]
    except OSError:
        return []


def holds(process: int, ino: int) -> bool | None:
    """Whether a process has a file with this inode number open; None if one may not look."""
    wanted = f"ino:\t{ino}\n"
    try:
        for descriptor in os.listdir(f"/proc/{process}/fdinfo"):
            try:
                with open(f"/proc/{process}/fdinfo/{descriptor}") as info:
                    if wanted in info.read():
                        return True
            except FileNotFoundError:
                continue  # closed meanwhile
    except PermissionError:
        return None
    except OSError:
        return False
    return False
