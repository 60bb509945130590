# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that are unloaded while patches for them, or patches in them, are installed.
kernel/livepatch/core.c."""

from __future__ import annotations

from klpfs.machine.kernel.livepatch.callbacks import Callbacks
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.objects import klp_find_module_object, patch_name
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.livepatch.transition import Transition
from klpfs.machine.structs import Struct


class GoingModules:
    """Reverts the patches of a module."""

    def __init__(
        self,
        common: Common,
        *,
        functions: PatchedFunctions,
        transition: Transition,
        callbacks: Callbacks,
        free: PatchFree,
    ) -> None:
        self._space = common.space
        self._universes = common.universes
        self._patches = common.patches
        self._functions = functions
        self._transition = transition
        self._callbacks = callbacks
        self._free = free
        self._klp_mutex = common.klp_mutex
        self._messages = common.messages

    async def klp_module_going(self, module: Struct) -> None:
        """Revert the patches of a module, and the patches that the module itself contains."""
        async with self._klp_mutex.held():
            module.klp_alive = False
            await self.klp_cleanup_module_patches_limited(module.name.string(), None)
            for patch in self._patches:
                if patch.mod == module.address_:
                    await self._abandon(patch)

    async def klp_cleanup_module_patches_limited(self, module: str, limit: Struct | None) -> None:
        """Revert the patches of the module of that name which are older than ``limit``; None: all of
        them. The caller holds klp_mutex."""
        for patch in self._patches.before(limit):
            obj = klp_find_module_object(self._space, patch, module)
            if obj is None:
                continue
            in_transition = patch == self._universes.patch
            if patch.enabled or in_transition:
                if not in_transition:
                    await self._callbacks.klp_pre_unpatch_callback(obj)
                self._messages.pr_notice(
                    f"reverting patch '{patch_name(patch)}' on unloading module '{module}'"
                )
                await self._functions.klp_unpatch_object(obj)
                await self._callbacks.klp_post_unpatch_callback(obj)
            self._free.klp_free_object_loaded(patch, obj)

    async def _abandon(self, patch: Struct) -> None:
        """Revert a patch whose own module goes while it is enabled: the init of the module has failed after
        ``klp_enable_patch``, or the module is removed by force. Linux would go on to run freed code."""
        self._messages.pr_warn(
            f"module of patch '{patch_name(patch)}' is unloaded, reverting the patch"
        )
        if patch == self._universes.patch:
            await self._transition.klp_cancel_transition()
        patch.enabled = False
        await self._functions.klp_unpatch_objects(patch)
        self._free.klp_free_patch(patch)
