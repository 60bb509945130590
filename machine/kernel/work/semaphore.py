# SPDX-License-Identifier: GPL-2.0-or-later
"""Counting semaphores: ``struct semaphore``. kernel/locking/semaphore.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.sched.wait import KILLABLE, MAX_SCHEDULE_TIMEOUT
from klpfs.machine.kernel.service import S64, Ptr, service
from klpfs.machine.kernel.work.waiters import Waiter, WaitQueues


class Semaphores:
    """The semaphores of one kernel."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._sched = base.sched
        self._waiters = WaitQueues(base.sched)

    async def _down(self, address: int, state: int, timeout: int = MAX_SCHEDULE_TIMEOUT) -> int:
        if self.down_trylock(address):
            waiter = Waiter(self._sched.current)
            await self._waiters.wait(
                address, waiter, state, lambda: self.up(address), timeout=timeout
            )
        return 0

    @service("down")
    async def down(self, address: Ptr) -> None:
        self._sched.might_sleep("kernel/locking/semaphore.c", 59)
        await self._down(address, TaskState.UNINTERRUPTIBLE)

    @service("down_interruptible")
    async def down_interruptible(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/semaphore.c", 83)
        return await self._down(address, TaskState.INTERRUPTIBLE)

    @service("down_killable")
    async def down_killable(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/semaphore.c", 110)
        return await self._down(address, KILLABLE)

    @service("down_timeout")
    async def down_timeout(self, address: Ptr, timeout: S64) -> int:
        self._sched.might_sleep("kernel/locking/semaphore.c", 165)
        return await self._down(address, TaskState.UNINTERRUPTIBLE, timeout)

    @service("down_trylock")
    def down_trylock(self, address: Ptr) -> int:
        """Return 0 if the semaphore was taken, else 1, unlike mutex_trylock()."""
        semaphore = self._space.view("struct semaphore", address)
        if not semaphore.count:
            return 1
        semaphore.count -= 1
        return 0

    @service("up")
    def up(self, address: Ptr) -> None:
        waiter = self._waiters.pop(address)
        if waiter:
            waiter.grant()
        else:
            self._space.view("struct semaphore", address).count += 1
