# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is in the kernel, and how to keep everybody out of it for a while. kernel/freezer.c,
kernel/power/process.c.

A process of the host is in the kernel from the first guest code that it runs until its operation ends.
A kernel thread never leaves; it has *safe points*, where it holds nothing of what it did before:

- its function itself (not something that this called) asks ``kthread_should_stop``, or parks;
- it sleeps in ``schedule`` or one of its kin, called by its function itself. ``msleep`` and locks do not
  count: who waits there is in the middle of something;
- it has not begun yet, or is one whose main loop is Python's and that runs no guest code now: the workers,
  ksoftirqd and kthreadd.

While the kernel is frozen, whoever comes to a safe point or to the door stays there.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task, TaskState

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
    """The door of the kernel, and the safe points of its threads."""

    def __init__(self, base: Base) -> None:
        self._symbols = base.computer.symbols
        self._sched = base.sched
        self._stack = base.stack
        self._by: Task | None = None
        self._thawed = trio.lowlevel.ParkingLot()
        self.on_safe_point: Callable[[Task], None] | None = None
        """Called with a kernel thread that has come to a safe point; set while somebody wants that."""
        base.sched.on_release.append(lambda _task: self._notify())
        self.longest = 0
        """Nanoseconds of guest time that a task was held, at most."""

    # -- where tasks are --------------------------------------------------------------------------

    def is_out(self, task: Task) -> bool:
        """Whether a task that does not run now is out of the kernel."""
        if task.held:
            return True
        if not task.depth:
            return task.is_kthread or not task.entered
        return task.service in _EXPLICIT_SCHEDULE and self._is_in_its_function(task)

    def _is_in_its_function(self, task: Task) -> bool:
        """Whether nothing but the function of a kernel thread is on its stack, below a service."""
        found = self._symbols.lookup_address(task.function) if task.function else None
        if found is None or task.depth != 1 or task.preempted:
            return False
        start, end = found[0].addr, found[0].addr + found[0].size
        entries = list(self._stack.walk(task))[1:]
        return all(start <= at < end or self._sched.is_return(at) for at in entries)

    async def safe_point(self, task: Task) -> None:
        """A kernel thread does what is a safe point if its function itself does it. A checkpoint only
        while the kernel is frozen."""
        if self._by is None and self.on_safe_point is None or not self._is_in_its_function(task):
            return
        if self.on_safe_point is not None:
            self.on_safe_point(task)
        await self._hold(task)

    # -- the door ---------------------------------------------------------------------------------

    async def _hold(self, task: Task) -> None:
        if self._by is None or task is self._by:
            return
        since = self._sched.clock.now()
        task.held = True
        self._notify()
        try:
            while self._by is not None:
                await self._thawed.park()
        finally:
            task.held = False
            self.longest = max(self.longest, self._sched.clock.now() - since)

    async def _enter(self, task: Task) -> None:
        """A task is about to run guest code. Threads of Python's are what interrupts are in Linux, they
        are not stopped; they leave the kernel by themselves."""
        if (not task.is_kthread or task.function) and self.is_out(task):
            await self._hold(task)

    def _notify(self) -> None:
        if self._by is not None:
            self._by.wake()

    async def freeze(self, seconds: float) -> list[Task]:
        """Stop every other task where it is out of the kernel. Returns those that did not come out
        within ``seconds`` of guest time: none, and the kernel is the caller's until `thaw`. A
        checkpoint unless everybody is out."""
        clock, task = self._sched.clock, self._sched.current
        assert self._by is None, "one transition at a time"
        self._by = task
        self._sched.gate = self._enter
        end = clock.now() + round(seconds * 1e9)
        while (inside := self._inside()) and clock.now() < end:
            task.state = TaskState.UNINTERRUPTIBLE
            await task.wait((end - clock.now()) / 1e9)
        return inside

    def _inside(self) -> list[Task]:
        return [t for t in self._sched if t is not self._by and not self.is_out(t)]

    def thaw(self) -> None:
        """Let everybody go on."""
        self._by = None
        self._sched.gate = None
        self._thawed.unpark_all()
