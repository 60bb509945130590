# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutexes: ``struct mutex``. kernel/locking/mutex.c."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.sched.wait import KILLABLE
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.work.rtmutex import has_rt_mutexes
from klpfs.machine.kernel.work.waiters import Waiter, WaitQueues
from klpfs.machine.structs import Struct

_U64_MASK = (1 << 64) - 1
_MUTEX_FLAG_WAITERS = 1
_MUTEX_FLAGS = 7


class Mutexes:
    """The mutexes of one kernel."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self._space = base.computer.space
        self._sched = base.sched
        self._printk = base.printk
        self._waiters = WaitQueues(base.sched)
        self.native = ("mutex_",) if has_rt_mutexes(base.computer) else ()
        """Prefixes of functions that are not replaced: with PREEMPT_RT, mutexes are rt_mutexes."""

    def _mutex(self, address: int) -> Struct:
        mutex: Struct = self._space.view("struct mutex", address)
        return mutex

    def _owner(self, address: int) -> int:
        """``__mutex_owner``: return the address of the task that holds the mutex, or 0."""
        return int(self._mutex(address).owner.counter) & _U64_MASK & ~_MUTEX_FLAGS

    def _set_owner(self, address: int, owner: int) -> None:
        waiters = _MUTEX_FLAG_WAITERS if self._waiters.first(address) else 0
        self._mutex(address).owner.counter = owner | waiters

    async def lock(self, address: int, state: int = TaskState.UNINTERRUPTIBLE) -> None:
        """``__mutex_lock``: lock the mutex at ``address`` for the current task, which sleeps in ``state`` if
        another task holds it. Raises OSError(EINTR) if ``state`` is INTERRUPTIBLE and a signal is pending.
        """
        if self.mutex_trylock(address):
            return
        waiter = Waiter(self._sched.current)
        self._mutex(address).owner.counter |= _MUTEX_FLAG_WAITERS
        try:
            await self._waiters.wait(address, waiter, state, lambda: self._hand_off(address))
        except BaseException:
            self._set_owner(address, self._owner(address))
            raise

    def unlock(self, address: int) -> None:
        """``mutex_unlock``: unlock the mutex at ``address``."""
        task = self._sched.current
        if self._owner(address) != task.address:
            self._printk(
                LOGLEVEL_WARNING,
                "DEBUG_LOCKS_WARN_ON(__mutex_owner(lock) != current): "
                f"{task.comm}/{task.pid} unlocks {address:#x}",
            )
        self._hand_off(address)

    def _hand_off(self, address: int) -> None:
        """``__mutex_handoff``: give the mutex to the first waiter, or unlock it."""
        waiter = self._waiters.pop(address)
        self._set_owner(address, waiter.task.address if waiter else 0)
        if waiter:
            waiter.grant()

    @asynccontextmanager
    async def mutex(self, address: int) -> AsyncIterator[None]:
        """Hold the mutex at ``address`` for the current task. A checkpoint if another task holds it."""
        call, symbol = self._sched.current.call, self._computer.symbol
        if self.native:
            await call(symbol("mutex_lock"), address)
        else:
            await self.lock(address)
        try:
            yield
        finally:
            if self.native:
                await call(symbol("mutex_unlock"), address)
            else:
                self.unlock(address)

    @service("mutex_lock")
    @service("mutex_lock_io", embedded=False)
    async def mutex_lock(self, address: Ptr) -> None:
        self._sched.might_sleep("kernel/locking/mutex.c", 580)
        await self.lock(address)

    @service("mutex_lock_interruptible")
    async def mutex_lock_interruptible(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/mutex.c", 580)
        await self.lock(address, TaskState.INTERRUPTIBLE)
        return 0

    @service("mutex_lock_killable")
    async def mutex_lock_killable(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/mutex.c", 580)
        await self.lock(address, KILLABLE)
        return 0

    @service("mutex_trylock")
    def mutex_trylock(self, address: Ptr) -> bool:
        if self._owner(address):
            return False
        self._set_owner(address, self._sched.current.address)
        return True

    @service("mutex_unlock")
    def mutex_unlock(self, address: Ptr) -> None:
        self.unlock(address)

    @service("mutex_is_locked")
    def mutex_is_locked(self, address: Ptr) -> bool:
        return self._owner(address) != 0
