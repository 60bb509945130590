# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that are loaded while patches for them are installed. kernel/livepatch/core.c."""

from __future__ import annotations

import errno
from typing import Protocol

from klpfs.machine import limits
from klpfs.machine.kernel.livepatch.callbacks import Callbacks
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.consistency.choice import Consistency
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.going import GoingModules
from klpfs.machine.kernel.livepatch.loaded import LoadedObjects
from klpfs.machine.kernel.livepatch.objects import klp_find_module_object, patch_name
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.livepatch.transition import Transition
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct


class ComingModules(Protocol):
    """Patches modules before their init runs. `older.notifier.LenientComingModules` is for Linux 4.0."""

    async def klp_module_coming(self, module: Struct) -> None:
        """Apply the installed patches to a module. Raises OSError if the module must not be loaded."""


class StrictComingModules:
    """Refuses a module that cannot be patched."""

    def __init__(
        self,
        common: Common,
        *,
        functions: PatchedFunctions,
        transition: Transition,
        callbacks: Callbacks,
        consistency: Consistency,
        loaded: LoadedObjects,
        free: PatchFree,
        going: GoingModules,
    ) -> None:
        self._space = common.space
        self._universes = common.universes
        self._patches = common.patches
        self._functions = functions
        self._transition = transition
        self._callbacks = callbacks
        self._consistency = consistency
        self._loaded = loaded
        self._free = free
        self._going = going
        self._klp_mutex = common.klp_mutex
        self._messages = common.messages

    async def klp_module_coming(self, module: Struct) -> None:
        name = module.name.string()
        if name == "vmlinux":
            self._messages.pr_err("vmlinux.ko: invalid module name")
            raise OSError(errno.EINVAL, "invalid module name")
        async with self._klp_mutex.held():
            module.klp_alive = True
            for patch in self._patches:
                obj = klp_find_module_object(self._space, patch, name)
                if obj is None:
                    continue
                obj.mod = module
                try:
                    await self._apply(patch, obj, name)
                except (OSError, PageFault, limits.ListTooLong):
                    self._messages.pr_warn(
                        f"patch '{patch_name(patch)}' failed for module '{name}', "
                        f"refusing to load module '{name}'"
                    )
                    module.klp_alive = False
                    self._free.klp_free_object_loaded(patch, obj)
                    await self._going.klp_cleanup_module_patches_limited(name, patch)
                    raise

    async def _apply(self, patch: Struct, obj: Struct, module: str) -> None:
        name, messages = patch_name(patch), self._messages
        try:
            self._loaded.klp_init_object_loaded(patch, obj)
        except OSError as error:
            messages.pr_warn(
                f"failed to initialize patch '{name}' for module '{module}' ({-(error.errno or 0)})"
            )
            raise
        in_transition = patch == self._universes.patch
        if not (patch.enabled or in_transition):  # registered only
            return
        messages.pr_notice(f"applying patch '{name}' to loading module '{module}'")
        result = await self._callbacks.klp_pre_patch_callback(obj)
        if result:
            messages.pr_warn(f"pre-patch callback failed for object '{module}'")
            raise OSError(-result if result < 0 else errno.EINVAL, "pre-patch callback")
        try:
            redirection = self._consistency.of(patch).redirection
            await self._functions.klp_patch_object(obj, redirection)
        except OSError as error:
            messages.pr_warn(
                f"failed to apply patch '{name}' to module '{module}' ({-(error.errno or 0)})"
            )
            await self._callbacks.klp_post_unpatch_callback(obj)
            raise
        if in_transition:
            self._transition.module_joined()
        else:
            await self._callbacks.klp_post_patch_callback(obj)
