# SPDX-License-Identifier: GPL-2.0-or-later
"""System states that patches change and hand over to newer patches. kernel/livepatch/state.c,
Documentation/livepatch/system-state.rst."""

from __future__ import annotations

from collections.abc import Iterator

from klpfs.machine import limits
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.service import U64, Ptr, service
from klpfs.machine.structs import Struct


class States:
    """Finds the ``klp_state``s of patches."""

    def __init__(self, common: Common) -> None:
        self._space = common.space
        self._universes = common.universes
        self._bugs = common.base.bugs
        self._patches = common.patches
        self._warned = False

    def klp_for_each_state(self, patch: Struct) -> Iterator[Struct]:
        """Yield the states of a patch. Raises limits.ListTooLong."""
        states = patch.states
        if states:
            for i in range(limits.LIST):
                if not states[i].id:
                    return
                yield states[i]
            raise limits.ListTooLong("the states of a patch")

    def _find(self, patch: Struct, id_: int) -> Struct | None:
        return next((state for state in self.klp_for_each_state(patch) if state.id == id_), None)

    def klp_is_patch_compatible(self, patch: Struct) -> bool:
        """Return whether a patch can handle all states that the installed patches have changed."""
        return all(
            self.klp_is_state_compatible(patch, old_state)
            for old_patch in self._patches
            for old_state in self.klp_for_each_state(old_patch)
        )

    def klp_is_state_compatible(self, patch: Struct, old_state: Struct) -> bool:
        """Return whether a patch has the state in at least the same version. A patch that does not
        replace the others need not have it at all."""
        state = self._find(patch, old_state.id)
        if state is None:
            return not patch.replace
        return bool(state.version >= old_state.version)

    @service("klp_get_state")
    def klp_get_state(self, patch: Ptr, id_: U64) -> int:
        """Return the address of a state of the patch at an address, or 0."""
        state = self._find(self._space.view("struct klp_patch", patch), id_)
        return state.address_ if state is not None else 0

    @service("klp_get_prev_state")
    def klp_get_prev_state(self, id_: U64) -> int:
        """Return the address of a state in the newest patch that has it and is older than the patch in
        transition, or 0."""
        current = self._universes.patch
        if current is None:
            if not self._warned:
                self._bugs.warn("kernel/livepatch/state.c", 69, "klp_get_prev_state")
            self._warned = True
            return 0
        last = 0
        for patch in self._patches.before(current):
            state = self._find(patch, id_)
            if state is not None:
                last = state.address_
        return last
