# SPDX-License-Identifier: GPL-2.0-or-later
"""Freezing: stop all tasks at points where they are out of the kernel. kernel/freezer.c,
kernel/power/process.c.

A process of the host is in the kernel from the first guest code that it runs until the end of its
operation. A kernel thread never leaves the kernel. It counts as out of the kernel at *safe points*, where
it is not in the middle of an operation:

- The thread function itself, not a function that it called, calls ``kthread_should_stop``, or parks.
- The thread function itself sleeps in ``schedule`` or a variant of it. ``msleep`` and locks do not count:
  a thread that waits there is in the middle of an operation.
- The thread has not started yet, or its main loop is in Python and it runs no guest code now. Those are the
  workers, ksoftirqd and kthreadd.

While the kernel is frozen, tasks stop when they enter the kernel or reach a safe point.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskState

_EXPLICIT_SCHEDULE = {
    "schedule",
    "io_schedule",
    "schedule_timeout",
    "schedule_timeout_interruptible",
    "schedule_timeout_killable",
    "schedule_timeout_uninterruptible",
    "schedule_timeout_idle",
    "kthread_parkme",
}


class Freezer:
    """Stops tasks at the entry of the kernel and at safe points, for one task that freezes the kernel."""

    def __init__(self, base: Base) -> None:
        self._symbols = base.computer.symbols
        self._sched = base.sched
        self._stack = base.stack
        self._frozen_by: Task | None = None
        self._thawed = trio.lowlevel.ParkingLot()
        self.on_safe_point: Callable[[Task], None] | None = None
        """Called with a kernel thread at a safe point; None if no transition needs it."""
        base.sched.on_release.append(lambda _task: self._notify())
        self.longest = 0
        """Longest time that a task was stopped (nanoseconds of guest time)."""

    # -- where tasks are --------------------------------------------------------------------------

    def is_out(self, task: Task) -> bool:
        """Return whether ``task``, which does not run now, is out of the kernel."""
        if task.held:
            return True
        if not task.depth:
            return task.is_kthread or not task.entered
        return task.service in _EXPLICIT_SCHEDULE and self._is_in_its_function(task)

    def _is_in_its_function(self, task: Task) -> bool:
        """Return whether a kernel thread is in a service that its thread function has called directly."""
        found = self._symbols.lookup_address(task.function) if task.function else None
        if found is None or task.depth != 1 or task.preempted:
            return False
        start, end = found[0].addr, found[0].addr + found[0].size
        entries = list(self._stack.walk(task))[1:]
        return all(start <= at < end or self._sched.is_return(at) for at in entries)

    async def safe_point(self, task: Task) -> None:
        """Stop ``task`` here while the kernel is frozen, if it is a kernel thread at a safe point. Called by
        services that are safe points for their direct callers. A checkpoint only while frozen."""
        if (
            self._frozen_by is None
            and self.on_safe_point is None
            or not self._is_in_its_function(task)
        ):
            return
        if self.on_safe_point is not None:
            self.on_safe_point(task)
        await self._hold(task)

    # -- freezing ---------------------------------------------------------------------------------

    async def _hold(self, task: Task) -> None:
        """``__refrigerator``: wait until the kernel is thawed, unless ``task`` has frozen it."""
        if self._frozen_by is None or task is self._frozen_by:
            return
        since = self._sched.clock.now()
        task.held = True
        self._notify()
        try:
            while self._frozen_by is not None:
                await self._thawed.park()
        finally:
            task.held = False
            self.longest = max(self.longest, self._sched.clock.now() - since)

    async def _enter(self, task: Task) -> None:
        """Stop a task that is about to run guest code. Kernel threads whose main loop is in Python do the
        work of interrupts: they are not stopped here, and leave the kernel by themselves."""
        if (not task.is_kthread or task.function) and self.is_out(task):
            await self._hold(task)

    def _notify(self) -> None:
        if self._frozen_by is not None:
            self._frozen_by.wake()

    async def freeze(self, seconds: float) -> list[Task]:
        """``freeze_processes``: keep all tasks except the current one out of the kernel until `thaw`.

        Returns the tasks that are still in the kernel after ``seconds`` of guest time. If there are none,
        no other task runs guest code until `thaw`. A checkpoint unless all tasks are out already.
        """
        clock, task = self._sched.clock, self._sched.current
        assert self._frozen_by is None, "the kernel is frozen already"
        self._frozen_by = task
        self._sched.gate = self._enter
        end = clock.now() + round(seconds * 1e9)
        while (inside := self._inside()) and clock.now() < end:
            task.state = TaskState.UNINTERRUPTIBLE
            await task.wait((end - clock.now()) / 1e9)
        return inside

    def _inside(self) -> list[Task]:
        return [t for t in self._sched if t is not self._frozen_by and not self.is_out(t)]

    def thaw(self) -> None:
        """``thaw_processes``: let all tasks go on."""
        self._frozen_by = None
        self._sched.gate = None
        self._thawed.unpark_all()
