# SPDX-License-Identifier: GPL-2.0-or-later
"""Switching one function after the other, each for all tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from klpfs.machine.kernel.livepatch.consistency.leaving import Condition
from klpfs.machine.kernel.livepatch.consistency.switch import KeepOut, Switch
from klpfs.machine.kernel.livepatch.consistency.universe import (
    KLP_PATCHED,
    KLP_UNPATCHED,
    Universes,
)
from klpfs.machine.structs import Struct


class ByFunction(Switch):
    """Switches each function when the condition allows it for all tasks. Other tasks run between two
    functions.

    All tasks are in the unpatched state all the time: a function with ``transition`` set runs in its old
    version, a function without it in its new version. This works in both directions, and can be reversed
    at any point.
    """

    def __init__(
        self,
        universes: Universes,
        condition: Condition,
        *,
        pause: Callable[[], Awaitable[None]],
        keep_out: KeepOut,
    ) -> None:
        super().__init__(universes)
        self._condition = condition
        self._pause = pause
        self._keep_out = keep_out

    def prepare(self) -> None:
        universes = self._universes
        universes.set_patch_states(KLP_UNPATCHED)
        universes.set_transition(universes.target_state == KLP_PATCHED)

    async def attempt(self) -> bool:
        func = self._next()
        while func is not None:
            async with self._keep_out():
                if not self._switch_func(func):
                    return False
            func = self._next()
            if func is not None:
                await self._pause()
        return True

    def _target(self) -> bool:
        """Return the value of ``transition`` of a function that has been switched."""
        return self._universes.target_state == KLP_UNPATCHED

    def _next(self) -> Struct | None:
        target = self._target()
        return next((f for f in self._universes.functions() if bool(f.transition) != target), None)

    def _switch_func(self, func: Struct) -> bool:
        blocker = self._condition()
        self.blocker = next(filter(None, map(blocker, self._universes.tasks())), "")
        if self.blocker:
            return False
        func.transition = self._target()
        self._universes.changed()
        return True

    def force(self) -> None:
        self._universes.set_transition(self._target())
        self._universes.changed()
