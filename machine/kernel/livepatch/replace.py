# SPDX-License-Identifier: GPL-2.0-or-later
"""Atomic replace: a patch with ``replace`` takes the place of all older ones. kernel/livepatch/core.c,
Documentation/livepatch/cumulative-patches.rst.

Each function that only an older patch changes gets a *nop* in the new one, which leads callers to the
original.
"""

from __future__ import annotations

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func,
    klp_for_each_object,
    klp_init_func_early,
    klp_init_object_early,
    klp_is_module,
    object_name,
)
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.structs import Struct


class AtomicReplace:
    """Adds and discards nops, and unpatches the replaced patches."""

    def __init__(self, common: Common, *, functions: PatchedFunctions, free: PatchFree) -> None:
        self._space = common.space
        self._memory = common.base.computer.memory
        self._slab = common.base.slab
        self._patches = common.patches
        self._functions = functions
        self._free = free

    # -- before the transition --------------------------------------------------------------------

    def klp_add_nops(self, patch: Struct) -> None:
        """Add the nops that a patch needs. Raises MemoryError."""
        for old_patch in self._patches:
            for old_obj in klp_for_each_object(self._space, old_patch):
                self.klp_add_object_nops(patch, old_obj)

    def klp_add_object_nops(self, patch: Struct, old_obj: Struct) -> None:
        """Add a nop for each function of ``old_obj`` that ``patch`` does not change. Raises MemoryError."""
        obj = self.klp_find_object(patch, old_obj)
        if obj is None:
            obj = self.klp_alloc_object_dynamic(old_obj, patch)
        # klp_find_func(), for all functions of old_obj at once.
        present = {_key(func) for func in klp_for_each_func(self._space, obj)}
        for old_func in klp_for_each_func(self._space, old_obj):
            if _key(old_func) not in present:
                self.klp_alloc_func_nop(old_func, obj)

    def klp_find_object(self, patch: Struct, old_obj: Struct) -> Struct | None:
        """Return the object of ``patch`` for the same module as ``old_obj``, or None."""
        name = object_name(old_obj)
        for obj in klp_for_each_object(self._space, patch):
            if klp_is_module(obj) == klp_is_module(old_obj) and object_name(obj) == name:
                return obj
        return None

    def klp_alloc_object_dynamic(self, old_obj: Struct, patch: Struct) -> Struct:
        """Add an object for the same module as ``old_obj`` to a patch, and return it. Raises MemoryError."""
        obj = self._kzalloc("struct klp_object")
        if klp_is_module(old_obj):
            obj.name = self._kstrdup(object_name(old_obj))
        klp_init_object_early(self._space, patch, obj)
        obj.dynamic = True
        return obj

    def klp_alloc_func_nop(self, old_func: Struct, obj: Struct) -> None:
        """Add a nop for ``old_func`` to an object. Raises MemoryError."""
        func = self._kzalloc("struct klp_func")
        func.old_name = self._kstrdup(old_func.old_name.string())
        func.old_sympos = old_func.old_sympos
        func.nop = True
        klp_init_func_early(self._space, obj, func)

    def _kzalloc(self, type_name: str) -> Struct:
        size = self._space.types.sizeof(type_name)
        struct: Struct = self._space.view(type_name, self._slab.alloc(size, "livepatch"))
        return struct

    def _kstrdup(self, text: str) -> int:
        data = text.encode("utf-8", "surrogateescape") + b"\0"
        address = self._slab.alloc(len(data), "livepatch")
        self._memory.write(address, data)
        return address

    # -- when it is complete ----------------------------------------------------------------------

    async def klp_unpatch_replaced_patches(self, new_patch: Struct) -> None:
        """Disable the patches that ``new_patch`` replaces: all older ones."""
        for old_patch in self._patches.before(new_patch):
            old_patch.enabled = False
            await self._functions.klp_unpatch_objects(old_patch)

    async def klp_discard_nops(self, new_patch: Struct) -> None:
        """Unpatch and free the nops of a patch: the patches that they are for are gone."""
        await self._functions.klp_unpatch_objects_dynamic(new_patch)
        self._free.klp_free_objects_dynamic(new_patch)


def _key(func: Struct) -> tuple[str, int]:
    """Return what ``klp_find_func`` compares: a name (empty: none, which is refused later), and a
    position."""
    name = func.old_name.string() if func.old_name else ""
    return name, max(func.old_sympos, 1)
