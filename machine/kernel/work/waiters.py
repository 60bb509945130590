# SPDX-License-Identifier: GPL-2.0-or-later
"""The wait queues of sleeping locks and completions.

The state of a lock is in its C struct in guest memory. Its wait queue is here, because waiters are tasks in
Python. The owner of a lock hands it over to the first waiter, so no task can starve.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.sched.wait import (
    MAX_SCHEDULE_TIMEOUT,
    schedule_timeout,
    signal_pending_state,
)


class Waiter:
    """A task that waits for a lock (``struct mutex_waiter``, ``struct rwsem_waiter``)."""

    def __init__(self, task: Task, *, reader: bool = False) -> None:
        self.task = task
        self.reader = reader
        self.granted = False

    def grant(self) -> None:
        """Give the lock to the waiter, and wake it."""
        self.granted = True
        self.task.wake()


class WaitQueues:
    """The waiters of one kind of lock, by the address of the lock, in the order of arrival."""

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched
        self._queues: dict[int, deque[Waiter]] = {}

    def first(self, address: int) -> Waiter | None:
        """Return the first waiter, or None."""
        queue = self._queues.get(address)
        return queue[0] if queue else None

    def add(self, address: int, waiter: Waiter) -> None:
        """Append a waiter."""
        self._queues.setdefault(address, deque()).append(waiter)

    def remove(self, address: int, waiter: Waiter) -> None:
        """Remove a waiter, if it is in the queue."""
        queue = self._queues.get(address)
        if queue and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[address]

    def pop(self, address: int) -> Waiter | None:
        """Remove the first waiter and return it, or None."""
        waiter = self.first(address)
        if waiter is not None:
            self.remove(address, waiter)
        return waiter

    async def wait(
        self,
        address: int,
        waiter: Waiter,
        state: int,
        release: Callable[[], None],
        *,
        timeout: int = MAX_SCHEDULE_TIMEOUT,
    ) -> None:
        """Sleep until the lock is granted to ``waiter``. ``release`` is called if the lock was granted and
        the wait fails nevertheless.

        Raises OSError: EINTR after a signal, ETIME after ``timeout`` jiffies.
        """
        task = waiter.task
        self.add(address, waiter)
        try:
            while not waiter.granted:
                if signal_pending_state(task, state):
                    raise OSError(errno.EINTR, "a signal is pending")
                if timeout <= 0:
                    raise OSError(errno.ETIME, "timeout")
                task.state = state
                timeout = await schedule_timeout(self._sched, timeout)
        except BaseException:
            if waiter.granted:
                release()
            raise
        finally:
            task.state = TaskState.RUNNING
            self.remove(address, waiter)
