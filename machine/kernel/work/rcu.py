# SPDX-License-Identifier: GPL-2.0-or-later
"""RCU on one CPU, kernel/rcu/. Read-side sections have preemption off, so a grace period ends as soon as
the guest has preemption on."""

from __future__ import annotations

import trio

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.work.workqueue import Workqueues
from klpfs.machine.limits import check_room


class Rcu:
    """Grace periods and callbacks. Callbacks run on a worker of ``workqueues``."""

    def __init__(self, base: Base, workqueues: Workqueues) -> None:
        self._space = base.computer.space
        self._sched = base.sched
        self._slab = base.slab
        self._workqueues = workqueues
        self._waiting: list[tuple[int, int]] = []
        self._drained = trio.Event()

    def _enqueue(self, function: int, argument: int) -> None:
        check_room(self._waiting)
        if not self._waiting:
            self._drained = trio.Event()
            self._workqueues.queue(self._invoke)
        self._waiting.append((function, argument))

    async def _invoke(self) -> None:
        """``rcu_do_batch`` on a worker: wait for a grace period, then call the callbacks. The function 0
        means kvfree()."""
        await self._sched.synchronize_rcu()
        batch, self._waiting = self._waiting, []
        task: Task = self._sched.current
        for function, argument in batch:
            if function:
                await task.call(function, argument)
            else:
                self._slab.kvfree(argument)
        if not self._waiting:
            self._drained.set()

    @service("synchronize_rcu", "synchronize_rcu_tasks")
    @service("synchronize_rcu_expedited", embedded=False)
    async def synchronize_rcu(self) -> None:
        await self._sched.synchronize_rcu()

    @service("call_rcu")
    def call_rcu(self, head: Ptr, function: Ptr) -> None:
        self._space.view("struct callback_head", head).func = function
        self._enqueue(function, head)

    @service("kvfree_call_rcu")
    def kvfree_call_rcu(self, _head: Ptr, pointer: Ptr) -> None:
        self._enqueue(0, pointer)

    @service("rcu_barrier")
    async def rcu_barrier(self) -> None:
        while self._waiting:
            await self._drained.wait()
