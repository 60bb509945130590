# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-write semaphores: ``struct rw_semaphore``. kernel/locking/rwsem.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.sched.wait import KILLABLE
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.work.rtmutex import has_rt_mutexes
from klpfs.machine.kernel.work.waiters import Waiter, WaitQueues

_RWSEM_WRITER_LOCKED, _RWSEM_READER_BIAS = 1, 256
_RWSEM_READER_OWNED = 1

_FUNCTIONS = ("down_read", "down_write", "up_read", "up_write", "downgrade_write")


class RwSemaphores:
    """The read-write semaphores of one kernel."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._sched = base.sched
        self._waiters = WaitQueues(base.sched)
        self.native = _FUNCTIONS if has_rt_mutexes(base.computer) else ()
        """Prefixes of functions that are not replaced: with PREEMPT_RT, an rw_semaphore is an rt_mutex."""

    def _rwsem_add(self, address: int, change: int) -> None:
        self._space.view("struct rw_semaphore", address).count.counter += change

    def _rwsem_trylock(self, address: int, task: Task, *, reader: bool) -> bool:
        semaphore = self._space.view("struct rw_semaphore", address)
        held = int(semaphore.count.counter)
        if held & _RWSEM_WRITER_LOCKED if reader else held:
            return False
        semaphore.count.counter += _RWSEM_READER_BIAS if reader else _RWSEM_WRITER_LOCKED
        semaphore.owner.counter = task.address | (_RWSEM_READER_OWNED if reader else 0)
        return True

    async def _rwsem_down(self, address: int, state: int, *, reader: bool) -> int:
        task = self._sched.current
        if self._waiters.first(address) or not self._rwsem_trylock(address, task, reader=reader):
            release = self.up_read if reader else self.up_write
            waiter = Waiter(task, reader=reader)
            try:
                await self._waiters.wait(address, waiter, state, lambda: release(address))
            except BaseException:
                self._rwsem_mark_wake(address)  # waiters behind this one may get the lock now
                raise
        return 0

    def _rwsem_mark_wake(self, address: int) -> None:
        """``rwsem_mark_wake``: grant the lock to the first writer, or to all readers before the next
        writer."""
        while (waiter := self._waiters.first(address)) and self._rwsem_trylock(
            address, waiter.task, reader=waiter.reader
        ):
            self._waiters.pop(address)
            waiter.grant()

    @service("down_read")
    async def down_read(self, address: Ptr) -> None:
        self._sched.might_sleep("kernel/locking/rwsem.c", 1519)
        await self._rwsem_down(address, TaskState.UNINTERRUPTIBLE, reader=True)

    @service("down_read_interruptible", embedded=False)
    async def down_read_interruptible(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/rwsem.c", 1528)
        return await self._rwsem_down(address, TaskState.INTERRUPTIBLE, reader=True)

    @service("down_read_killable", embedded=False)
    async def down_read_killable(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/rwsem.c", 1542)
        return await self._rwsem_down(address, KILLABLE, reader=True)

    @service("down_read_trylock")
    def down_read_trylock(self, address: Ptr) -> bool:
        return self._rwsem_trylock(address, self._sched.current, reader=True)

    @service("down_write")
    async def down_write(self, address: Ptr) -> None:
        self._sched.might_sleep("kernel/locking/rwsem.c", 1572)
        await self._rwsem_down(address, TaskState.UNINTERRUPTIBLE, reader=False)

    @service("down_write_killable", embedded=False)
    async def down_write_killable(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/rwsem.c", 1583)
        return await self._rwsem_down(address, KILLABLE, reader=False)

    @service("down_write_trylock")
    def down_write_trylock(self, address: Ptr) -> bool:
        return self._rwsem_trylock(address, self._sched.current, reader=False)

    @service("up_read")
    def up_read(self, address: Ptr) -> None:
        self._rwsem_add(address, -_RWSEM_READER_BIAS)
        self._rwsem_mark_wake(address)

    @service("up_write")
    def up_write(self, address: Ptr) -> None:
        self._space.view("struct rw_semaphore", address).owner.counter = 0
        self._rwsem_add(address, -_RWSEM_WRITER_LOCKED)
        self._rwsem_mark_wake(address)

    @service("downgrade_write", embedded=False)
    def downgrade_write(self, address: Ptr) -> None:
        self._rwsem_add(address, _RWSEM_READER_BIAS - _RWSEM_WRITER_LOCKED)
        owner = self._sched.current.address | _RWSEM_READER_OWNED
        self._space.view("struct rw_semaphore", address).owner.counter = owner
        self._rwsem_mark_wake(address)
