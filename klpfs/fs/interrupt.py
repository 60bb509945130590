# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals of callers: a long operation is cancelled when its caller has a signal pending.

The kernel reports signals to a FUSE server by FUSE_INTERRUPT, which pyfuse3 does not pass on. Until the
operation is answered, its caller cannot even be killed. So while an operation takes longer than
`PERIOD`, the threads that may wait for it are looked up in /proc. Nothing runs while no operation is
pending.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from types import TracebackType

import trio

from klpfs.fs.host_proc import (
    Thread,
    has_open,
    has_signal,
    kill,
    lives_in_guest,
    processes,
    thread_group,
    threads,
    wchan,
)

PERIOD = 0.1
"""Seconds after which the callers of an operation are looked up, and between two looks at them."""


class Interruptible:
    """The context manager of one operation. It is cancelled if a caller has a signal pending.

    Raise `InterruptedError` on exit in this case.
    """

    __slots__ = ("_interrupts", "closing", "ino", "pid", "scope", "since", "waiters")

    def __init__(self, interrupts: Interrupts, pid: int, ino: int, *, closing: bool) -> None:
        self._interrupts = interrupts
        self.pid = pid
        self.ino = ino
        self.closing = closing
        self.scope = trio.CancelScope()
        self.since = 0.0
        self.waiters: list[Thread] | None = None  # not looked up yet

    def __enter__(self) -> None:
        self.scope.__enter__()
        self._interrupts.begin(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._interrupts.end(self)
        self.scope.__exit__(kind, error, traceback)
        if self.scope.cancelled_caught:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


class Interrupts:
    """All pending operations, and the task that cancels those whose callers have a signal pending."""

    def __init__(self) -> None:
        self._pending: dict[Interruptible, None] = {}
        self._work = trio.Event()

    def operation(self, pid: int, ino: int, *, closing: bool = False) -> Interruptible:
        """Return the context manager for an operation on an open file with inode number ``ino``.

        ``pid``: the thread that opened the file. Another process may have got the file since.
        ``closing``: the operation is part of close(2), so the caller has no descriptor any more.
        """
        return Interruptible(self, pid, ino, closing=closing)

    def begin(self, operation: Interruptible) -> None:
        """Register an operation that starts."""
        operation.since = trio.current_time()
        self._pending[operation] = None
        self._work.set()

    def end(self, operation: Interruptible) -> None:
        """Unregister an operation."""
        del self._pending[operation]

    async def run(self) -> None:
        """Watch pending operations until cancelled."""
        while True:
            await self._work.wait()
            # With many pending operations, look less often, so that this does not use up the CPU.
            await trio.sleep(max(PERIOD, len(self._pending) / 1000))
            if not self._pending:
                self._work = trio.Event()
                continue
            late = trio.current_time() - PERIOD
            for operation in [each for each in self._pending if each.since <= late]:
                if operation.waiters is None:
                    if operation.closing:
                        operation.waiters = find_closers(operation.pid)
                    else:
                        operation.waiters = await find_waiters(operation.pid, operation.ino)
                if any(map(has_signal, operation.waiters)):
                    operation.scope.cancel()
                await trio.lowlevel.checkpoint()


async def find_waiters(opener: int, ino: int) -> list[Thread]:
    """Return the threads that may wait for an operation on a file.

    They are threads of the process that opened the file, or else of processes that inherited it.
    """
    process = thread_group(opener)
    if process is not None:
        if has_open(process, ino) is None:  # another user's: we see nothing but its signals
            return [Thread(process, opener)]
        if found := blocked_threads(process, ino):
            return found
    return await trio.to_thread.run_sync(
        lambda: [thread for other in processes() for thread in blocked_threads(other, ino)]
    )


async def kill_caller(opener: int, ino: int, number: int) -> None:
    """Kill the process whose task died in an operation on a file, if it runs under ``klpfs run``.

    Other processes get an error: their kernel is the host's.
    """
    waiting = {thread.process for thread in await find_waiters(opener, ino)}
    process = thread_group(opener) if len(waiting) != 1 else waiting.pop()
    if process is not None and await trio.to_thread.run_sync(lives_in_guest, process):
        with suppress(OSError):
            kill(process, number)


def find_closers(opener: int) -> list[Thread]:
    """Return the threads of the process that opened a file which may be closing it."""
    process = thread_group(opener)
    if process is None:
        return []
    return [thread for thread in threads(process) if wchan(thread) in _WCHANS]


def blocked_threads(process: int, ino: int) -> list[Thread]:
    """Return the threads of a process that may wait for FUSE, if the process has the file open."""
    if not has_open(process, ino):
        return []
    return [thread for thread in threads(process) if wchan(thread) in _WCHANS]


_WCHANS = ("request_wait_answer", "0", "")
"""The wchan of a thread that waits for FUSE (fs/fuse/dev.c), and the values where it is hidden."""
