# SPDX-License-Identifier: GPL-2.0-or-later
"""Switching all functions for all tasks in one step.

No other task runs between two checkpoints of Python code: that is the stopped machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from klpfs.machine.kernel.livepatch.consistency.leaving import Condition
from klpfs.machine.kernel.livepatch.consistency.refcount import Counter
from klpfs.machine.kernel.livepatch.consistency.switch import KeepOut, Switch
from klpfs.machine.kernel.livepatch.consistency.universe import KLP_PATCHED, Universes
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.sched.core import Task


@dataclass
class Stops:
    """How often the machine was stopped, and for how long at most. No guest time passes meanwhile."""

    count: int = 0
    longest: int = 0
    """Nanoseconds of host time."""


class Step:
    """The step: everything is in the target state after it."""

    def __init__(self, universes: Universes, functions: PatchedFunctions) -> None:
        self._universes = universes
        self._functions = functions

    def take(self, tasks: Iterable[Task]) -> None:
        """Convert ``tasks``, which are the remaining ones, and all functions."""
        target = self._universes.target_state
        for task in tasks:
            task.struct.patch_state = target
        for func in self._universes.patched_functions():
            self._functions.select(func, new=target == KLP_PATCHED)
        self._universes.changed()


class ByKernel(Switch):
    """``stop_machine``: takes the step if the condition allows it for all tasks."""

    def __init__(
        self,
        universes: Universes,
        condition: Condition,
        *,
        step: Step,
        stops: Stops,
        keep_out: KeepOut,
        tries: int = 1,
    ) -> None:
        super().__init__(universes)
        self._condition = condition
        self._step = step
        self._stops = stops
        self._keep_out = keep_out
        self.tries = tries

    async def attempt(self) -> bool:
        async with self._keep_out():
            return self._stop_machine()

    def _stop_machine(self) -> bool:
        since = time.perf_counter_ns()
        remaining, blocker = self._universes.remaining(), self._condition()
        self.blocker = next(filter(None, map(blocker, remaining)), "")
        if not self.blocker:
            self._step.take(remaining)
        self._stops.count += 1
        self._stops.longest = max(self._stops.longest, time.perf_counter_ns() - since)
        return not self.blocker

    def force(self) -> None:
        self._step.take(self._universes.remaining())


class ByRefcount(Switch):
    """Takes the step when the last call of a function of the patch returns. No task is stopped.

    Calls are counted from the first attempt on. The calls that are under way then are not counted, so the
    count means nothing until each task of that time has been seen outside the functions, at an attempt.
    """

    def __init__(
        self, universes: Universes, condition: Condition, *, step: Step, counter: Counter
    ) -> None:
        super().__init__(universes)
        self._condition = condition
        self._step = step
        self._counter = counter
        self._uncounted: list[Task] = []

    async def attempt(self) -> bool:
        if not self._universes.remaining():
            return True
        sites = [int(func.old_func) for func in self._universes.patched_functions()]
        if await self._counter.start(sites) or self._counter.lost():
            self._uncounted = self._universes.tasks()
        blocker = self._condition()
        alive = set(self._universes.tasks())
        self._uncounted = [task for task in self._uncounted if task in alive and blocker(task)]
        if self._uncounted:
            self._counter.on_zero = None
            self.blocker = blocker(self._uncounted[0])
            return False
        if self._counter.count:
            self.blocker = f"{self._counter.count} calls are under way"
            self._counter.on_zero = self._zero
            return False
        self._step.take(self._universes.remaining())
        return True

    def _zero(self) -> None:
        if not self._counter.lost():
            self._step.take(self._universes.remaining())
            self._counter.on_zero = None

    def module_joined(self) -> None:
        self._counter.on_zero = None

    def force(self) -> None:
        self._step.take(self._universes.remaining())

    async def finish(self) -> None:
        self._counter.on_zero = None
        await self._counter.stop()
