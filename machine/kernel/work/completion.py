# SPDX-License-Identifier: GPL-2.0-or-later
"""Completions: ``struct completion``. kernel/sched/completion.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.sched.wait import (
    ERESTARTSYS,
    KILLABLE,
    MAX_SCHEDULE_TIMEOUT,
    schedule_timeout,
    signal_pending_state,
)
from klpfs.machine.kernel.service import U32, U64, Ptr, service
from klpfs.machine.kernel.work.waiters import Waiter, WaitQueues

_DONE_FOR_ALL = (1 << 32) - 1  # completion.done after complete_all()


class Completions:
    """The completions of one kernel."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._sched = base.sched
        self._waiters = WaitQueues(base.sched)

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
                    waiter = Waiter(task)
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
        await self._wait_for_completion(address, TaskState.UNINTERRUPTIBLE)

    @service("wait_for_completion_timeout")
    @service("wait_for_completion_io_timeout", embedded=False)
    async def wait_for_completion_timeout(self, address: Ptr, timeout: U64) -> int:
        return await self._wait_for_completion(address, TaskState.UNINTERRUPTIBLE, timeout)

    @service("wait_for_completion_interruptible")
    async def wait_for_completion_interruptible(self, address: Ptr) -> int:
        return min(0, await self._wait_for_completion(address, TaskState.INTERRUPTIBLE))

    @service("wait_for_completion_interruptible_timeout")
    async def wait_for_completion_interruptible_timeout(self, address: Ptr, timeout: U64) -> int:
        return await self._wait_for_completion(address, TaskState.INTERRUPTIBLE, timeout)

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
