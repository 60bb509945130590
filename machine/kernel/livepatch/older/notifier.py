# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that are loaded whether they can be patched or not, as in Linux 4.0, where the core learnt of
them from a module notifier. kernel/livepatch/core.c of Linux 4.0."""

from __future__ import annotations

import errno

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.loaded import LoadedObjects
from klpfs.machine.kernel.livepatch.objects import klp_find_module_object, patch_name
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct


class LenientComingModules:
    """Replaces `coming.StrictComingModules`."""

    def __init__(
        self,
        common: Common,
        *,
        functions: PatchedFunctions,
        loaded: LoadedObjects,
        free: PatchFree,
    ) -> None:
        self._space = common.space
        self._patches = common.patches
        self._functions = functions
        self._loaded = loaded
        self._free = free
        self._klp_mutex = common.klp_mutex
        self._messages = common.messages

    async def klp_module_coming(self, module: Struct) -> None:
        """``klp_module_notify``. Patches are applied in the order in which they were registered, so that
        the last one is on top."""
        name = module.name.string()
        async with self._klp_mutex.held():
            module.klp_alive = True
            for patch in self._patches:
                obj = klp_find_module_object(self._space, patch, name)
                if obj is None:
                    continue
                obj.mod = module
                try:
                    await self._apply(patch, obj, name)
                except (OSError, PageFault) as error:
                    number = error.errno if isinstance(error, OSError) else errno.EFAULT
                    self._messages.pr_warn(
                        f"failed to apply patch '{patch_name(patch)}' to module '{name}' "
                        f"({-(number or 0)})"
                    )
                    self._free.klp_free_object_loaded(patch, obj)

    async def _apply(self, patch: Struct, obj: Struct, module: str) -> None:
        """``klp_module_notify_coming``."""
        self._loaded.klp_init_object_loaded(patch, obj)
        if patch.enabled:
            self._messages.pr_notice(
                f"applying patch '{patch_name(patch)}' to loading module '{module}'"
            )
            await self._functions.klp_patch_object(obj, "ftrace")
