# SPDX-License-Identifier: GPL-2.0-or-later
"""Sleeping locks, completions, and the wake-up function of wait queues.

kernel/locking/{mutex,semaphore,rwsem}.c, kernel/sched/completion.c, kernel/sched/wait.c. The state of a lock
is in its C struct in guest memory. Its wait queue is here, because waiters are tasks in Python. The owner
of a lock hands it over to the first waiter, so no task can starve.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.sched.wait import (
    ERESTARTSYS,
    KILLABLE,
    MAX_SCHEDULE_TIMEOUT,
    NORMAL,
    schedule_timeout,
    signal_pending_state,
)
from klpfs.machine.kernel.service import S32, S64, U32, U64, Ptr, service
from klpfs.machine.structs import Struct

_U64_MASK = (1 << 64) - 1
_MUTEX_FLAG_WAITERS = 1
_MUTEX_FLAGS = 7
_RWSEM_WRITER_LOCKED, _RWSEM_READER_BIAS = 1, 256
_RWSEM_READER_OWNED = 1
_DONE_FOR_ALL = (1 << 32) - 1  # completion.done after complete_all()

_RT_MUTEXES = ("mutex_", "down_read", "down_write", "up_read", "up_write", "downgrade_write")

INTERRUPTIBLE, UNINTERRUPTIBLE = TaskState.INTERRUPTIBLE, TaskState.UNINTERRUPTIBLE


class _Waiter:
    """A task that waits for a lock (``struct mutex_waiter``, ``struct rwsem_waiter``)."""

    def __init__(self, task: Task, *, reader: bool = False) -> None:
        self.task = task
        self.reader = reader
        self.granted = False

    def grant(self) -> None:
        self.granted = True
        self.task.wake()


class _WaitQueues:
    """Wait queues by the address of the lock, in the order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[_Waiter]] = {}

    def first(self, address: int) -> _Waiter | None:
        queue = self._queues.get(address)
        return queue[0] if queue else None

    def add(self, address: int, waiter: _Waiter) -> None:
        self._queues.setdefault(address, deque()).append(waiter)

    def remove(self, address: int, waiter: _Waiter) -> None:
        queue = self._queues.get(address)
        if queue and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[address]

    def pop(self, address: int) -> _Waiter | None:
        waiter = self.first(address)
        if waiter is not None:
            self.remove(address, waiter)
        return waiter


class Locking:
    """The sleeping locks of one kernel."""

    def __init__(self, base: Base) -> None:
        self._computer = computer = base.computer
        self._space = computer.space
        self._sched = base.sched
        self._printk = base.printk
        self._waiters = _WaitQueues()
        preempt_rt = "rtmutex" in computer.space.types["struct mutex"].fields
        self.native = _RT_MUTEXES if preempt_rt else ()
        """Prefixes of functions that are not replaced. With PREEMPT_RT, mutexes and rw_semaphores are
        rt_mutexes: guest code, which only needs schedule() and wake-ups from Python."""

    async def _wait(
        self,
        address: int,
        waiter: _Waiter,
        state: int,
        release: Callable[[], None],
        timeout: int = MAX_SCHEDULE_TIMEOUT,
    ) -> None:
        """Sleep until the lock is granted to ``waiter``. ``release`` is called if the lock was granted and
        the wait fails nevertheless.

        Raises OSError: EINTR after a signal, ETIME after ``timeout`` jiffies.
        """
        task = waiter.task
        self._waiters.add(address, waiter)
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
            self._waiters.remove(address, waiter)

    # -- struct mutex -----------------------------------------------------------------------------

    def _mutex(self, address: int) -> Struct:
        mutex: Struct = self._space.view("struct mutex", address)
        return mutex

    def _owner(self, address: int) -> int:
        """``__mutex_owner``: return the address of the task that holds the mutex, or 0."""
        return int(self._mutex(address).owner.counter) & _U64_MASK & ~_MUTEX_FLAGS

    def _set_owner(self, address: int, owner: int) -> None:
        waiters = _MUTEX_FLAG_WAITERS if self._waiters.first(address) else 0
        self._mutex(address).owner.counter = owner | waiters

    async def lock(self, address: int, state: int = UNINTERRUPTIBLE) -> None:
        """``__mutex_lock``: lock the mutex at ``address`` for the current task, which sleeps in ``state`` if
        another task holds it. Raises OSError(EINTR) if ``state`` is INTERRUPTIBLE and a signal is pending.
        """
        if self.mutex_trylock(address):
            return
        waiter = _Waiter(self._sched.current)
        self._mutex(address).owner.counter |= _MUTEX_FLAG_WAITERS
        try:
            await self._wait(address, waiter, state, lambda: self._hand_off(address))
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
        await self.lock(address, INTERRUPTIBLE)
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

    # -- struct semaphore -------------------------------------------------------------------------

    async def _down(self, address: int, state: int, timeout: int = MAX_SCHEDULE_TIMEOUT) -> int:
        if self.down_trylock(address):
            waiter = _Waiter(self._sched.current)
            await self._wait(address, waiter, state, lambda: self.up(address), timeout)
        return 0

    @service("down")
    async def down(self, address: Ptr) -> None:
        self._sched.might_sleep("kernel/locking/semaphore.c", 59)
        await self._down(address, UNINTERRUPTIBLE)

    @service("down_interruptible")
    async def down_interruptible(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/semaphore.c", 83)
        return await self._down(address, INTERRUPTIBLE)

    @service("down_killable")
    async def down_killable(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/semaphore.c", 110)
        return await self._down(address, KILLABLE)

    @service("down_timeout")
    async def down_timeout(self, address: Ptr, timeout: S64) -> int:
        self._sched.might_sleep("kernel/locking/semaphore.c", 165)
        return await self._down(address, UNINTERRUPTIBLE, timeout)

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

    # -- struct rw_semaphore ----------------------------------------------------------------------

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
            waiter = _Waiter(task, reader=reader)
            try:
                await self._wait(address, waiter, state, lambda: release(address))
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
        await self._rwsem_down(address, UNINTERRUPTIBLE, reader=True)

    @service("down_read_interruptible", embedded=False)
    async def down_read_interruptible(self, address: Ptr) -> int:
        self._sched.might_sleep("kernel/locking/rwsem.c", 1528)
        return await self._rwsem_down(address, INTERRUPTIBLE, reader=True)

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
        await self._rwsem_down(address, UNINTERRUPTIBLE, reader=False)

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

    # -- struct completion ------------------------------------------------------------------------

    async def _wait_for_completion(
        self, address: int, state: int, timeout: int = MAX_SCHEDULE_TIMEOUT
    ) -> int:
        """``wait_for_common``: wait for a completion. Returns the jiffies that are left (at least 1), 0 after
        the timeout, or -ERESTARTSYS after a signal."""
        self._sched.might_sleep("kernel/sched/completion.c", 101)
        completion = self._space.view("struct completion", address)
        if not completion.done:
            task = self._sched.current
            try:
                while True:
                    if signal_pending_state(task, state):
                        timeout = -ERESTARTSYS
                        break
                    waiter = _Waiter(task)
                    self._waiters.add(address, waiter)
                    try:
                        task.state = state
                        timeout = await schedule_timeout(self._sched, timeout)
                    finally:
                        self._waiters.remove(address, waiter)
                    if completion.done or timeout <= 0:
                        break
            finally:
                task.state = TaskState.RUNNING
            if not completion.done:
                return timeout
        if completion.done != _DONE_FOR_ALL:
            completion.done -= 1
        return timeout or 1

    @service("wait_for_completion")
    @service("wait_for_completion_io", embedded=False)
    async def wait_for_completion(self, address: Ptr) -> None:
        await self._wait_for_completion(address, UNINTERRUPTIBLE)

    @service("wait_for_completion_timeout")
    @service("wait_for_completion_io_timeout", embedded=False)
    async def wait_for_completion_timeout(self, address: Ptr, timeout: U64) -> int:
        return await self._wait_for_completion(address, UNINTERRUPTIBLE, timeout)

    @service("wait_for_completion_interruptible")
    async def wait_for_completion_interruptible(self, address: Ptr) -> int:
        return min(0, await self._wait_for_completion(address, INTERRUPTIBLE))

    @service("wait_for_completion_interruptible_timeout")
    async def wait_for_completion_interruptible_timeout(self, address: Ptr, timeout: U64) -> int:
        return await self._wait_for_completion(address, INTERRUPTIBLE, timeout)

    @service("wait_for_completion_killable")
    async def wait_for_completion_killable(self, address: Ptr) -> int:
        return min(0, await self._wait_for_completion(address, KILLABLE))

    @service("wait_for_completion_killable_timeout", embedded=False)
    async def wait_for_completion_killable_timeout(self, address: Ptr, timeout: U64) -> int:
        return await self._wait_for_completion(address, KILLABLE, timeout)

    @service("wait_for_completion_state", embedded=False)
    async def wait_for_completion_state(self, address: Ptr, state: U32) -> int:
        return min(0, await self._wait_for_completion(address, state))

    @service("try_wait_for_completion")
    def try_wait_for_completion(self, address: Ptr) -> bool:
        completion = self._space.view("struct completion", address)
        if not completion.done:
            return False
        if completion.done != _DONE_FOR_ALL:
            completion.done -= 1
        return True

    @service("completion_done")
    def completion_done(self, address: Ptr) -> bool:
        return bool(self._space.view("struct completion", address).done)

    @service("complete")
    def complete(self, address: Ptr) -> None:
        """Wake the first waiter. If there is none, the next wait returns at once."""
        completion = self._space.view("struct completion", address)
        if completion.done != _DONE_FOR_ALL:
            completion.done += 1
        waiter = self._waiters.pop(address)
        if waiter:
            waiter.grant()

    @service("complete_all")
    def complete_all(self, address: Ptr) -> None:
        """Wake all waiters. Later waits return at once."""
        self._space.view("struct completion", address).done = _DONE_FOR_ALL
        while waiter := self._waiters.pop(address):
            waiter.grant()

    # -- rt_mutexes -------------------------------------------------------------------------------

    @service("rt_mutex_setprio", embedded=False)
    def rt_mutex_setprio(self, _task: Ptr, _pi_task: Ptr) -> None:
        """Do nothing: the scheduler has no priorities, so there is no priority inheritance."""

    # -- wait queues ------------------------------------------------------------------------------

    @service("default_wake_function")
    def default_wake_function(self, entry: Ptr, mode: U32, _flags: S32, _key: Ptr) -> int:
        """Wake the task of a wait_queue_entry. The code of wait queues itself is guest code."""
        address = int(self._space.view("struct wait_queue_entry", entry).private)
        return int(self._wake(address, mode))

    @service("wake_up_process")
    def wake_up_process(self, address: Ptr) -> int:
        return int(self._wake(address, NORMAL))

    @service("wake_up_state")
    def wake_up_state(self, address: Ptr, state: U32) -> int:
        return int(self._wake(address, state))

    def _wake(self, address: int, states: int) -> bool:
        try:
            return self._sched.at(address).wake(states)
        except OSError:  # the task has ended, and the caller holds a reference to its task_struct
            return False
