# SPDX-License-Identifier: GPL-2.0-or-later
"""System states that patches change and hand on to their successors. kernel/livepatch/state.c."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from klpfs.machine import limits
from klpfs.machine.computer import Computer
from klpfs.machine.kernel.livepatch.transition import Transition
from klpfs.machine.kernel.oops.traps import Traps
from klpfs.machine.kernel.service import U64, Ptr, service
from klpfs.machine.structs import Struct


class States:
    """Looks up ``klp_state``s. ``patches`` gives those in use, oldest first."""

    def __init__(
        self,
        computer: Computer,
        transition: Transition,
        traps: Traps,
        patches: Callable[[], Iterable[Struct]],
    ) -> None:
        self._space = computer.space
        self._transition = transition
        self._traps = traps
        self._patches = patches
        self._warned = False

    def _states(self, patch: Struct) -> Iterator[Struct]:
        states = patch.states
        if states:
            for i in range(limits.LIST):
                if not states[i].id:
                    return
                yield states[i]
            raise limits.ListTooLong("the states of a patch")

    def _find(self, patch: Struct, id_: int) -> Struct | None:
        return next((state for state in self._states(patch) if state.id == id_), None)

    def is_compatible(self, patch: Struct) -> bool:
        """``klp_is_patch_compatible``: it knows every state that an installed patch has changed (if it
        replaces them) in at least the same version."""
        for installed in self._patches():
            for old in self._states(installed):
                new = self._find(patch, old.id)
                if new is None and patch.replace or new is not None and new.version < old.version:
                    return False
        return True

    @service("klp_get_state")
    def klp_get_state(self, patch: Ptr, id_: U64) -> int:
        state = self._find(self._space.view("struct klp_patch", patch), id_)
        return state.address_ if state is not None else 0

    @service("klp_get_prev_state")
    def klp_get_prev_state(self, id_: U64) -> int:
        current = self._transition.patch
        if current is None:
            if not self._warned:
                self._traps.warn("kernel/livepatch/state.c", 69, "klp_get_prev_state")
            self._warned = True
            return 0
        last = 0
        for patch in self._patches():
            if patch.address_ == current.address_:
                break
            state = self._find(patch, id_)
            if state is not None:
                last = state.address_
        return last
