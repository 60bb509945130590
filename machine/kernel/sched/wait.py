# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting: timeouts in jiffies, signals, completions, and active references to objects.

kernel/time/timer.c (schedule_timeout), include/linux/sched/signal.h, kernel/sched/completion.c,
fs/kernfs/dir.c (active references).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.task import TaskState

ERESTARTSYS = 512
"""Errno of a wait that a signal has ended, include/linux/errno.h. User space never sees it."""
MAX_SCHEDULE_TIMEOUT = (1 << 63) - 1
"""Timeout of a wait without a timeout."""
KILLABLE = TaskState.UNINTERRUPTIBLE | 0x100
"""TASK_KILLABLE: a sleep that only a fatal signal ends. The guest has no fatal signals."""
IDLE = TaskState.UNINTERRUPTIBLE | 0x400
"""TASK_IDLE: a sleep that does not count as load."""
NORMAL = TaskState.INTERRUPTIBLE | TaskState.UNINTERRUPTIBLE
"""TASK_NORMAL: the states that a plain wake-up ends."""


def signal_pending_state(task: Task, state: int) -> bool:
    """Return whether a pending signal keeps ``task`` from sleeping in ``state``."""
    return bool(state & TaskState.INTERRUPTIBLE) and task.signal_pending


async def schedule_timeout(sched: Scheduler, timeout: int) -> int:
    """Sleep in the current task's state for at most ``timeout`` jiffies. Returns the jiffies that are left;
    0 after the timeout. A checkpoint."""
    task, clock = sched.current, sched.clock
    if timeout >= MAX_SCHEDULE_TIMEOUT:
        await task.wait()
        return timeout
    expires = clock.ticks() + timeout
    if not await task.wait(clock.seconds_until(expires)):
        return 0
    return max(0, expires - clock.ticks())


class ActiveReferences:
    """References of the tasks that use an object, such as the active references of kernfs.

    The task that removes the object waits until all of them are dropped.
    """

    def __init__(self) -> None:
        self._count = 0
        self._drained: Completion | None = None  # not None while, and after, the object is removed

    @contextmanager
    def hold(self) -> Iterator[None]:
        """``kernfs_get_active``, ``kernfs_put_active``: hold a reference during the body. Raises
        OSError(ENODEV) if the object has been removed."""
        if self._drained is not None:
            raise OSError(errno.ENODEV, "the object has been removed")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if self._drained is not None and not self._count:
                self._drained.complete_all()

    async def drain(self, task: Task) -> None:
        """``kernfs_drain``: refuse new references, and wait on ``task`` until all are dropped. A checkpoint
        if there are any."""
        self._drained = Completion()
        if self._count:
            await self._drained.wait(task)


class Completion:
    """An event that happens once, and that tasks wait for: a completion used with ``complete_all``."""

    def __init__(self) -> None:
        self.done = False
        self._waiting: list[Task] = []

    def complete_all(self) -> None:
        """Wake all tasks that wait. Later waits return at once."""
        self.done = True
        for task in self._waiting:
            task.wake()
        self._waiting.clear()

    async def wait(self, task: Task, state: int = TaskState.UNINTERRUPTIBLE) -> None:
        """``wait_for_completion`` on ``task``, in ``state``. Raises OSError(ERESTARTSYS) if ``state`` is
        INTERRUPTIBLE and a signal is pending. A checkpoint unless the completion is done."""
        try:
            while not self.done:
                if signal_pending_state(task, state):
                    raise OSError(ERESTARTSYS, "a signal is pending")
                if task not in self._waiting:
                    self._waiting.append(task)
                task.state = state
                await task.wait()
        finally:
            task.state = TaskState.RUNNING
            if task in self._waiting:
                self._waiting.remove(task)
