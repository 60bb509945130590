# SPDX-License-Identifier: GPL-2.0-or-later
"""One way to get all tasks and functions from one state to the other: what a transition asks of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from klpfs.machine.kernel.livepatch.consistency.universe import (
    KLP_PATCHED,
    KLP_UNPATCHED,
    Universes,
)

KeepOut = Callable[[], AbstractAsyncContextManager[None]]
"""Return a block in which the other tasks are kept out of the kernel, or one in which they are not."""


class Switch:
    """One transition of one patch."""

    tries = 0
    """The number of attempts after which it gives up; 0: it never gives up."""

    def __init__(self, universes: Universes) -> None:
        self._universes = universes
        self.blocker = ""
        """Why the last attempt failed, as a sentence."""

    def prepare(self) -> None:
        """Set the initial states: the part of ``klp_init_transition`` that depends on the model. Nothing
        changes for callers of the functions."""
        universes = self._universes
        initial = KLP_UNPATCHED if universes.target_state == KLP_PATCHED else KLP_PATCHED
        universes.set_patch_states(initial)
        universes.set_transition(True)

    def start(self) -> None:
        """Allow the change: the part of ``klp_start_transition`` that depends on the model. Called again when
        the target state has been reversed."""

    async def attempt(self) -> bool:
        """Go as far as possible. Return whether everything is in the target state; otherwise `blocker`
        says why not."""
        raise NotImplementedError

    def attempt_failed(self) -> None:
        """Called after each failed attempt of a switch that never gives up."""

    def module_joined(self) -> None:
        """Called when a module with functions of the patch has been loaded."""

    def force(self) -> None:
        """Set everything to the target state, whatever the tasks do."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Called when the transition is over. May be called more than once."""
