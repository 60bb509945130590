# SPDX-License-Identifier: GPL-2.0-or-later
"""No transition: what a patch changes is changed as soon as its functions are on the stacks, for every task
at once, as it was before Linux 4.12."""

from __future__ import annotations

from klpfs.machine.kernel.livepatch.patch import Redirection
from klpfs.machine.kernel.livepatch.transition import KLP_UNDEFINED, KLP_UNPATCHED, Transition
from klpfs.machine.kernel.sched.core import Scheduler
from klpfs.machine.structs import Struct


class AtOnce(Transition):
    """Stands in for `Transition` where there is none: no task has a state, and nothing is ever under way
    that somebody could see, wait for, reverse or force."""

    def __init__(self, sched: Scheduler, redirection: Redirection) -> None:
        self._sched = sched
        self._redirection = redirection
        self._state = KLP_UNDEFINED
        self._changing: Struct | None = None

    @property
    def patch(self) -> Struct | None:
        return None

    @property
    def target_state(self) -> int:
        return self._state

    @target_state.setter
    def target_state(self, state: int) -> None:
        self._state = state

    def init(self, patch: Struct, state: int) -> None:
        self._changing, self._state = patch, state

    def start(self) -> None:
        """There is nobody to tell."""

    async def try_complete(self) -> Struct | None:
        patch, state = self._changing, self._state
        assert patch is not None
        self._changing, self._state = None, KLP_UNDEFINED
        if state == KLP_UNPATCHED:
            await self._redirection.unpatch_objects(patch)
            await self._sched.synchronize_rcu()
        return patch

    async def cancel(self) -> None:
        self._state = KLP_UNPATCHED
        await self.try_complete()
