# SPDX-License-Identifier: GPL-2.0-or-later
"""What switches at once: the second axis of a consistency model.

- *function*: one function after the other, each for all tasks (`by_function`).
- *thread*: one task after the other, each for all functions (`by_thread`).
- *kernel*: all functions for all tasks, in one step (`by_kernel`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

from klpfs.machine.kernel.livepatch.common import Messages
from klpfs.machine.kernel.livepatch.consistency import Model
from klpfs.machine.kernel.livepatch.consistency.by_function import ByFunction
from klpfs.machine.kernel.livepatch.consistency.by_kernel import ByKernel, ByRefcount, Step, Stops
from klpfs.machine.kernel.livepatch.consistency.by_thread import (
    ByThread,
    ByThreadInTurn,
    ByThreadOutside,
)
from klpfs.machine.kernel.livepatch.consistency.leaving import Condition, Leaving
from klpfs.machine.kernel.livepatch.consistency.refcount import Counter
from klpfs.machine.kernel.livepatch.consistency.switch import KeepOut, Switch
from klpfs.machine.kernel.livepatch.consistency.universe import Universes
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.sched.freezer import Freezer

FREEZE_SECONDS = 20.0
"""How long tasks are kept out of the kernel at most (guest seconds), as ``freeze_timeout_msecs``."""


class Switches:
    """Makes the switch of a model."""

    def __init__(
        self,
        messages: Messages,
        *,
        universes: Universes,
        leaving: Leaving,
        functions: PatchedFunctions,
        freezer: Freezer,
        counter: Counter,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._messages = messages
        self._universes = universes
        self._leaving = leaving
        self._step = Step(universes, functions)
        self._freezer = freezer
        self._counter = counter
        self.pause = pause
        """Lets other tasks run between two functions, or between two tasks."""
        self.stops = Stops()

    def unavailable(self, model: Model) -> str:
        """Return why this kernel image cannot have a model, or an empty string."""
        if model.detection == "refcount" and not self._counter.available:
            return "this kernel image has no code that counts calls"
        return ""

    def of(self, model: Model) -> Switch:
        """Return a new switch."""
        leaving = self._leaving
        if model.detection == "refcount":
            return ByRefcount(
                self._universes,
                leaving.patched_set_stopped,
                step=self._step,
                counter=self._counter,
            )
        if model.switch == "thread":
            return self._by_thread(model)
        condition, keep_out = self._together(model)
        if model.switch == "function":
            return ByFunction(self._universes, condition, pause=self._pause, keep_out=keep_out)
        return ByKernel(
            self._universes,
            condition,
            step=self._step,
            stops=self.stops,
            keep_out=keep_out,
            tries=model.tries,
        )

    def _together(self, model: Model) -> tuple[Condition, KeepOut]:
        """Return the condition that all tasks must meet at the same time, and what makes them meet it."""
        if model.leave == "function":
            return self._leaving.function, nullcontext
        if model.leave == "kernel":
            return self._leaving.kernel_but_current, self._frozen
        return self._leaving.patched_set_stopped, nullcontext

    def _by_thread(self, model: Model) -> Switch:
        universes, leaving, messages = self._universes, self._leaving, self._messages
        if model.leave == "function":
            return ByThreadInTurn(universes, leaving.function, messages, self._pause)
        if model.leave == "kernel":
            return ByThreadOutside(universes, leaving.kernel, messages, self._freezer)
        return ByThread(universes, leaving.patched_set, messages)

    @asynccontextmanager
    async def _frozen(self) -> AsyncIterator[None]:
        """Keep the other tasks out of the kernel, those that are out within `FREEZE_SECONDS`."""
        try:
            await self._freezer.freeze(FREEZE_SECONDS)
            yield
        finally:
            self._freezer.thaw()

    async def _pause(self) -> None:
        await self.pause()  # which a test may have replaced
