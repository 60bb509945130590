# SPDX-License-Identifier: GPL-2.0-or-later
"""How a task waits: with a timeout in jiffies, for what happens once, open to signals or not.

kernel/time/timer.c (schedule_timeout), include/linux/sched/signal.h.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from klpfs.machine.kernel.sched.core import Scheduler, Task, TaskState

ERESTARTSYS = 512
"""A signal ended the wait, include/linux/errno.h; not an errno that programs see."""
MAX_SCHEDULE_TIMEOUT = (1 << 63) - 1
"""No timeout."""
KILLABLE = TaskState.UNINTERRUPTIBLE | 0x100
"""TASK_KILLABLE: only a fatal signal would end it, and the guest has none."""
IDLE = TaskState.UNINTERRUPTIBLE | 0x400
"""TASK_IDLE: sleeps without counting as load."""
NORMAL = TaskState.INTERRUPTIBLE | TaskState.UNINTERRUPTIBLE
"""TASK_NORMAL: whom a wake-up is for."""


def signal_pending_state(task: Task, state: int) -> bool:
    """Whether a signal keeps ``task`` from sleeping in ``state``."""
    return bool(state & TaskState.INTERRUPTIBLE) and task.signal_pending


async def schedule_timeout(sched: Scheduler, timeout: int) -> int:
    """Sleep in the state that the current task has set, at most ``timeout`` jiffies; returns what
    is left of them, 0 when the time is over. A checkpoint."""
    task, clock = sched.current, sched.clock
    if timeout >= MAX_SCHEDULE_TIMEOUT:
        await task.wait()
        return timeout
    expires = clock.ticks() + timeout
    if not await task.wait(clock.seconds_until(expires)):
        return 0
    return max(0, expires - clock.ticks())


class Users:
    """Who is inside of something that may be taken away."""

    def __init__(self) -> None:
        self._count = 0
        self._left: Once | None = (
            None  # it is being taken away; happens when the last one is outside
        )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Whoever takes it away waits until the body is done. Raises OSError(ENODEV) when it is gone."""
        if self._left is not None:
            raise OSError(errno.ENODEV, "it is gone")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if self._left is not None and not self._count:
                self._left.happen()

    async def drain(self, task: Task) -> None:
        """Let nobody in any more, and wait on ``task`` until nobody is inside. A checkpoint if somebody
        is."""
        self._left = Once()
        if self._count:
            await self._left.wait(task)


class Once:
    """Something that happens once, and that tasks wait for."""

    def __init__(self) -> None:
        self.happened = False
        self._waiting: list[Task] = []

    def happen(self) -> None:
        """Let everybody go who waits."""
        self.happened = True
        for task in self._waiting:
            task.wake()
        self._waiting.clear()

    async def wait(self, task: Task, state: int = TaskState.UNINTERRUPTIBLE) -> None:
        """Wait for it on ``task``, in ``state``. Raises OSError(ERESTARTSYS) if that is interruptible and
        a signal has come. A checkpoint unless it has happened."""
        try:
            while not self.happened:
                if signal_pending_state(task, state):
                    raise OSError(ERESTARTSYS, "a signal")
                if task not in self._waiting:
                    self._waiting.append(task)
                task.state = state
                await task.wait()
        finally:
            task.state = TaskState.RUNNING
            if task in self._waiting:
                self._waiting.remove(task)
