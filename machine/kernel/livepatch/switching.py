# SPDX-License-Identifier: GPL-2.0-or-later
"""What changes over at once: the second axis of a consistency model.

- *function*: one function after the other, each for every task.
- *thread*: one task after the other, each for all functions.
- *kernel*: all functions for all tasks, in one step.

Each of the classes below is a way to go from one side to the other, `Switches` has the choice. Between two
checkpoints of Python's nobody else runs: that is the stopped machine. A change that has to find every
task outside of the kernel at once has to keep them there, which `klpfs.machine.kernel.sched.freezer` does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from klpfs.machine.kernel.livepatch.consistency import Model
from klpfs.machine.kernel.livepatch.leaving import Leaving, Left
from klpfs.machine.kernel.livepatch.patch import Redirection
from klpfs.machine.kernel.livepatch.refcount import Counter
from klpfs.machine.kernel.livepatch.universe import KLP_PATCHED, KLP_UNPATCHED, Universes
from klpfs.machine.kernel.printk.printk import LOGLEVEL_NOTICE, Printk
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.structs import Struct

SIGNALS_TIMEOUT = 15
"""After so many tries in vain, and again after as many more, the tasks in the way are signalled."""
FREEZE_SECONDS = 20.0
"""How long tasks are kept out of the kernel at most, as ``freeze_timeout_msecs``."""

Look = Callable[[], Left]
"""Begins a look at all tasks, in one of the ways of `leaving.Leaving`."""


class Switch:
    """One way to change over. ``tries``: after so many in vain it gives up; 0: never."""

    tries = 0

    def __init__(self, universes: Universes, printk: Printk) -> None:
        self._universes = universes
        self._printk = printk
        self.in_the_way = ""
        """Why the last try was in vain."""

    def prepare(self) -> None:
        """Before the functions are put on their stacks, or before pre_unpatch: nothing changes yet."""
        universes = self._universes
        universes.put_all(KLP_UNPATCHED if universes.target_state == KLP_PATCHED else KLP_PATCHED)
        universes.set_transition(True)

    def start(self) -> None:
        """From now on it may happen. Also after the target has been reversed."""

    async def attempt(self) -> bool:
        """Go as far as it can. Whether everything is on the other side; `in_the_way` says why not."""
        raise NotImplementedError

    def nudge(self) -> None:
        """Another try was in vain."""

    def joined(self) -> None:
        """A module has come with functions of the patch."""

    def force(self) -> None:
        """Declare everything moved."""
        raise NotImplementedError

    async def finish(self) -> None:
        """The transition is over, whichever way. May be called more than once."""


class ByThread(Switch):
    """Each task when it has left what it must: at a try, and as it leaves the kernel."""

    def __init__(self, universes: Universes, printk: Printk, look: Look) -> None:
        super().__init__(universes, printk)
        self._look = look
        self._signals_cnt = 0

    def start(self) -> None:
        for task in self._universes.behind():
            self._universes.ask(task)
        self._signals_cnt = 0

    async def attempt(self) -> bool:
        left = self._look()
        stuck = [task for task in self._universes.behind() if not self._try_switch_task(task, left)]
        return not stuck

    def _try_switch_task(self, task: Task, left: Left) -> bool:
        """``klp_try_switch_task``: whether the task is in the target state now."""
        reason = left(task)
        if reason:
            self.in_the_way = reason
            return False
        self._universes.move(task)
        return True

    def nudge(self) -> None:
        if self._signals_cnt and not self._signals_cnt % SIGNALS_TIMEOUT:
            self._send_signals()
        self._signals_cnt += 1

    def _send_signals(self) -> None:
        """``klp_send_signals``: tasks that sleep interruptibly come out of it."""
        if self._signals_cnt == SIGNALS_TIMEOUT:
            self._printk(LOGLEVEL_NOTICE, "livepatch: signaling remaining tasks")
        for task in self._universes.tasks():
            if self._universes.pending(task):
                if not task.is_kthread:
                    task.signal_pending = True
                task.wake(TaskState.INTERRUPTIBLE)

    def force(self) -> None:
        for task in self._universes.tasks():
            if self._universes.pending(task):
                self._universes.move(task)


class ByThreadInTurn(ByThread):
    """Each task in its turn, wherever it is; the others run in between."""

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        look: Look,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(universes, printk, look)
        self._pause = pause

    async def attempt(self) -> bool:
        while behind := self._universes.behind():
            self._universes.move(behind[0])
            await self._pause()
        return True


class ByThreadOutside(ByThread):
    """Each task as it leaves the kernel or comes to a safe point; those that are there, at a try."""

    def __init__(self, universes: Universes, printk: Printk, look: Look, freezer: Freezer) -> None:
        super().__init__(universes, printk, look)
        self._freezer = freezer

    def start(self) -> None:
        super().start()
        self._freezer.on_safe_point = self._safe_point

    def _safe_point(self, task: Task) -> None:
        if self._universes.pending(task):
            self._universes.move(task)

    async def finish(self) -> None:
        self._freezer.on_safe_point = None


@dataclass
class Stops:
    """How often the machine stood still, and for how many nanoseconds of the host's at most: for the guest
    that takes no time."""

    count: int = 0
    longest: int = 0


class ByKernel(Switch):
    """All tasks in one step, when none is in the way: ``stop_machine``."""

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        look: Look,
        redirection: Redirection,
        stops: Stops,
        *,
        tries: int = 1,
    ) -> None:
        super().__init__(universes, printk)
        self._look = look
        self._redirection = redirection
        self._stops = stops
        self.tries = tries

    async def attempt(self) -> bool:
        return self._stop_machine()

    def _stop_machine(self) -> bool:
        since = time.perf_counter_ns()
        behind, left = self._universes.behind(), self._look()
        self.in_the_way = next(filter(None, map(left, behind)), "")
        if not self.in_the_way:
            self._move(behind)
        self._stops.count += 1
        self._stops.longest = max(self._stops.longest, time.perf_counter_ns() - since)
        return not self.in_the_way

    def _move(self, tasks: list[Task]) -> None:
        target = self._universes.target_state
        for task in tasks:
            task.struct.patch_state = target
        for func in self._universes.patched_functions():
            self._redirection.turn(func, new=target == KLP_PATCHED)
        self._universes.changed()

    def force(self) -> None:
        self._move(self._universes.behind())


class ByFrozenKernel(ByKernel):
    """The same, with everybody kept out of the kernel until they all are."""

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        look: Look,
        redirection: Redirection,
        stops: Stops,
        freezer: Freezer,
    ) -> None:
        super().__init__(universes, printk, look, redirection, stops)
        self._freezer = freezer

    async def attempt(self) -> bool:
        try:
            await self._freezer.freeze(FREEZE_SECONDS)
            return self._stop_machine()
        finally:
            self._freezer.thaw()


class AtZero(ByKernel):
    """All tasks in one step, at the moment when the last call of the set returns. Nobody is stopped.

    Calls are counted from the first try on. Tasks that were in the set then are not in the count: each
    try looks for those, and before the last of them has been seen outside the count means nothing.
    """

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        look: Look,
        redirection: Redirection,
        stops: Stops,
        counter: Counter,
    ) -> None:
        super().__init__(universes, printk, look, redirection, stops, tries=0)
        self._counter = counter
        self._uncounted: list[Task] = []

    def _begin(self) -> None:
        self._uncounted = self._universes.tasks()

    async def attempt(self) -> bool:
        if not self._universes.behind():
            return True
        sites = [int(func.old_func) for func in self._universes.patched_functions()]
        if await self._counter.start(sites) or self._counter.lost():
            self._begin()
        left = self._look()
        alive = set(self._universes.tasks())
        self._uncounted = [task for task in self._uncounted if task in alive and left(task)]
        if self._uncounted:
            self._counter.on_zero = None
            self.in_the_way = left(self._uncounted[0])
            return False
        if self._counter.count:
            self.in_the_way = f"{self._counter.count} calls are under way"
            self._counter.on_zero = self._zero
            return False
        self._move(self._universes.behind())
        return True

    def _zero(self) -> None:
        if not self._counter.lost():
            self._move(self._universes.behind())
            self._counter.on_zero = None

    def joined(self) -> None:
        self._counter.on_zero = None

    async def finish(self) -> None:
        self._counter.on_zero = None
        await self._counter.stop()


class ByFunction(Switch):
    """One function after the other, each for all tasks, whenever none is in the way.

    All tasks are in the unpatched state all the time: a function whose ``transition`` is set runs as before,
    one whose is not set has changed over. So it goes in both directions, and can be reversed anywhere.
    """

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        look: Look,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(universes, printk)
        self._look = look
        self._pause = pause

    def prepare(self) -> None:
        universes = self._universes
        universes.put_all(KLP_UNPATCHED)
        universes.set_transition(universes.target_state == KLP_PATCHED)

    async def attempt(self) -> bool:
        func = self._next()
        while func is not None:
            if not await self._turn(func):
                return False
            func = self._next()
            if func is not None:
                await self._pause()
        return True

    def _done(self) -> bool:
        """What ``transition`` is for a function that has changed over."""
        return self._universes.target_state == KLP_UNPATCHED

    def _next(self) -> Struct | None:
        done = self._done()
        return next((f for f in self._universes.functions() if bool(f.transition) != done), None)

    async def _turn(self, func: Struct) -> bool:
        left = self._look()
        self.in_the_way = next(filter(None, map(left, self._universes.tasks())), "")
        if self.in_the_way:
            return False
        func.transition = self._done()
        self._universes.changed()
        return True

    def force(self) -> None:
        self._universes.set_transition(self._done())
        self._universes.changed()


class ByFunctionFrozen(ByFunction):
    """The same, with everybody kept out of the kernel until they all are, once for each function."""

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        look: Look,
        pause: Callable[[], Awaitable[None]],
        freezer: Freezer,
    ) -> None:
        super().__init__(universes, printk, look, pause)
        self._freezer = freezer

    async def _turn(self, func: Struct) -> bool:
        try:
            await self._freezer.freeze(FREEZE_SECONDS)
            return await super()._turn(func)
        finally:
            self._freezer.thaw()


class Switches:
    """Makes the switch of a model. ``pause`` lets other tasks run between two functions."""

    def __init__(
        self,
        universes: Universes,
        printk: Printk,
        leaving: Leaving,
        redirection: Redirection,
        freezer: Freezer,
        counter: Counter,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._universes = universes
        self._printk = printk
        self._leaving = leaving
        self._redirection = redirection
        self._freezer = freezer
        self._counter = counter
        self.pause = pause
        self.stops = Stops()

    def unavailable(self, model: Model) -> str:
        """Why this kernel cannot switch so, or nothing."""
        if model.detection == "refcount" and not self._counter.available:
            return "this kernel image has no code that counts calls"
        return ""

    def of(self, model: Model) -> Switch:
        """A switch that has not begun."""
        base = self._universes, self._printk
        leaving, freezer = self._leaving, self._freezer
        kernel = self._redirection, self.stops
        match model:
            case Model(detection="refcount"):
                return AtZero(*base, leaving.patched_set_standing, *kernel, self._counter)
            case Model(leave="function", switch="thread"):
                return ByThreadInTurn(*base, leaving.function, self._pause)
            case Model(leave="kernel", switch="thread"):
                return ByThreadOutside(*base, leaving.kernel, freezer)
            case Model(leave="kernel", switch="kernel"):
                return ByFrozenKernel(*base, leaving.kernel_but_current, *kernel, freezer)
            case Model(leave="kernel", switch="function"):
                return ByFunctionFrozen(*base, leaving.kernel_but_current, self._pause, freezer)
            case Model(leave="patched_set", switch="thread"):
                return ByThread(*base, leaving.patched_set)
        look = leaving.function if model.leave == "function" else leaving.patched_set_standing
        if model.switch == "kernel":
            return ByKernel(*base, look, *kernel, tries=model.tries)
        return ByFunction(*base, look, self._pause)

    async def _pause(self) -> None:
        await self.pause()
