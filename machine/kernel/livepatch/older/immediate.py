# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that take effect at once, for all tasks, as before Linux 4.12. kernel/livepatch/core.c of Linux
4.0.

A call that is under way finishes in the version in which it began.
"""

from __future__ import annotations

from klpfs.machine.kernel.livepatch.consistency.universe import KLP_UNDEFINED, KLP_UNPATCHED
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.livepatch.transition import OnComplete
from klpfs.machine.kernel.sched.core import Scheduler
from klpfs.machine.structs import Struct


class ImmediateTransition:
    """Replaces `transition.ConsistentTransition`. Tasks have no state, and a transition is over before
    the task that began it does anything else, so that it is never seen, reversed or forced."""

    def __init__(
        self, sched: Scheduler, *, functions: PatchedFunctions, on_complete: OnComplete
    ) -> None:
        self._sched = sched
        self._functions = functions
        self._on_complete = on_complete
        self._patch: Struct
        self._state = KLP_UNDEFINED

    def klp_init_transition(self, patch: Struct, state: int) -> None:
        self._patch, self._state = patch, state

    def klp_start_transition(self) -> None:
        """Do nothing: no task is asked to convert."""

    async def klp_try_complete_transition(self) -> None:
        patch = self._patch
        await self._complete()
        self._on_complete(patch)

    async def klp_cancel_transition(self) -> None:
        self._state = KLP_UNPATCHED
        await self._complete()

    async def _complete(self) -> None:
        patch, state = self._patch, self._state
        self._state = KLP_UNDEFINED
        if state == KLP_UNPATCHED:
            await self._functions.klp_unpatch_objects(patch)
            await self._sched.synchronize_rcu()

    async def klp_reverse_transition(self) -> None:
        raise AssertionError("no transition is under way")

    def klp_force_transition(self) -> None:
        raise AssertionError("no transition is under way")

    def module_joined(self) -> None:
        raise AssertionError("no transition is under way")
