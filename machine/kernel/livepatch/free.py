# SPDX-License-Identifier: GPL-2.0-or-later
"""Freeing patches. kernel/livepatch/core.c."""

from __future__ import annotations

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.consistency.choice import Consistency
from klpfs.machine.kernel.livepatch.kobjects import KlpKobjects
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func,
    klp_for_each_object,
    object_name,
)
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.kernel.work.workqueue import Workqueues
from klpfs.machine.structs import Struct


class PatchFree:
    """Undoes what `init.PatchInit` did. The caller holds klp_mutex."""

    def __init__(
        self,
        common: Common,
        *,
        kobjects: KlpKobjects,
        consistency: Consistency,
        modules: Modules,
        workqueues: Workqueues,
    ) -> None:
        self._space = common.space
        self._slab = common.base.slab
        self._patches = common.patches
        self._kobjects = kobjects
        self._consistency = consistency
        self._modules = modules
        self._workqueues = workqueues
        self._abi = common.abi

    # -- objects and functions --------------------------------------------------------------------

    def klp_free_object_loaded(self, patch: Struct, obj: Struct) -> None:
        """Undo ``klp_init_object_loaded``, so that the module can be loaded again. Linux
        calls ``klp_clear_object_relocs`` here since 6.3."""
        if self._abi.clears_relocations:
            self._modules.klp_clear_object_relocs(int(patch.mod), object_name(obj))
        obj.mod = 0
        for func in klp_for_each_func(self._space, obj):
            func.old_func = 0
            if func.nop:
                func.new_func = 0

    def klp_free_objects(self, patch: Struct) -> None:
        """Free all objects and functions of a patch."""
        self.__klp_free_objects(patch, nops_only=False)

    def klp_free_objects_dynamic(self, patch: Struct) -> None:
        """Free the nops of a patch, and the objects that have only nops."""
        self.__klp_free_objects(patch, nops_only=True)

    def __klp_free_objects(self, patch: Struct, *, nops_only: bool) -> None:
        for obj in klp_for_each_object(self._space, patch):
            self.__klp_free_funcs(obj, nops_only=nops_only)
            if obj.dynamic or not nops_only:
                self._space.list_del(obj.member_address_("node"))
                self._kobjects.kobject_put(obj)
                if obj.dynamic:
                    self.klp_free_object_dynamic(obj)

    def __klp_free_funcs(self, obj: Struct, *, nops_only: bool) -> None:
        for func in klp_for_each_func(self._space, obj):
            if func.nop or not nops_only:
                self._space.list_del(func.member_address_("node"))
                self._kobjects.kobject_put(func)
                if func.nop:
                    self.klp_free_func_nop(func)

    def klp_free_object_dynamic(self, obj: Struct) -> None:
        """Free an object that `replace.AtomicReplace` has allocated."""
        self._slab.free(int(obj.name))
        self._slab.free(obj.address_)

    def klp_free_func_nop(self, func: Struct) -> None:
        """Free a nop."""
        self._slab.free(int(func.old_name))
        self._slab.free(func.address_)

    # -- patches ----------------------------------------------------------------------------------

    def klp_free_patch_start(self, patch: Struct) -> None:
        """Take a patch off the list and free its objects. Its directory is still there."""
        self._consistency.forget(patch)
        self._patches.discard(patch)
        self.klp_free_objects(patch)

    def klp_free_patch(self, patch: Struct) -> None:
        """Free a patch whose module is not released: one that was registered only (the function is one of
        Linux 4.12), or whose module goes."""
        self.klp_free_patch_start(patch)
        self._kobjects.kobject_put(patch)

    def klp_free_patch_finish(self, patch: Struct) -> None:
        """Remove the directory of a patch and release its module, unless the patch has been forced."""
        self._kobjects.kobject_put(patch)
        if not patch.forced:
            self._modules.put(int(patch.mod))

    def klp_free_patch_async(self, patch: Struct) -> None:
        """Free a patch. Its directory is removed by a worker, because the caller may be writing to a file in
        it."""
        self.klp_free_patch_start(patch)

        async def klp_free_patch_work_fn() -> None:
            self.klp_free_patch_finish(patch)

        self._workqueues.queue(klp_free_patch_work_fn)

    def klp_free_replaced_patches_async(self, new_patch: Struct) -> None:
        """Free the patches that ``new_patch`` has replaced: all older ones."""
        for old_patch in self._patches.before(new_patch):
            self.klp_free_patch_async(old_patch)

    def free_unused(self, patch: Struct) -> None:
        """Free what the transition of ``patch``, which is complete, leaves unused: the end of
        ``klp_try_complete_transition``."""
        if not patch.enabled:
            self.klp_free_patch_async(patch)
        elif patch.replace:
            self.klp_free_replaced_patches_async(patch)
