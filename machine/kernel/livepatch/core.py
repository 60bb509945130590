# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch core: ``klp_enable_patch``, and the file ``enabled``. kernel/livepatch/core.c.

`Core` enables and disables patches in every kernel. The lifecycle around it depends on the kernel:
`EnabledLifecycle` is today's, `older.registered.RegisteredLifecycle` that of kernels before 5.1.
"""

from __future__ import annotations

import errno

from klpfs.machine import limits
from klpfs.machine.kernel.kobject import kstrtobool
from klpfs.machine.kernel.livepatch.callbacks import Callbacks
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.consistency.choice import Consistency
from klpfs.machine.kernel.livepatch.consistency.universe import KLP_PATCHED, KLP_UNPATCHED
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.init import PatchInit
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_object,
    klp_for_each_object_static,
    klp_is_object_loaded,
    object_name,
    patch_name,
)
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.livepatch.state import States
from klpfs.machine.kernel.livepatch.transition import Transition
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct


class Core:
    """Enables and disables patches that are initialized. The caller holds klp_mutex."""

    def __init__(
        self,
        common: Common,
        *,
        functions: PatchedFunctions,
        transition: Transition,
        callbacks: Callbacks,
        consistency: Consistency,
    ) -> None:
        self._space = common.space
        self._universes = common.universes
        self._functions = functions
        self._transition = transition
        self._callbacks = callbacks
        self._consistency = consistency
        self._messages = common.messages
        self._abi = common.abi

    async def klp_enable(self, patch: Struct) -> None:
        """``__klp_enable_patch``. Raises OSError, after log lines: EBUSY during a transition, or what a
        callback, ftrace, or a model that gives up returns."""
        transition, name = self._transition, patch_name(patch)
        if self._universes.patch is not None:
            raise OSError(errno.EBUSY, "a transition is under way")
        self._messages.pr_notice(f"enabling patch '{name}'")
        transition.klp_init_transition(patch, KLP_PATCHED)
        try:
            for obj in klp_for_each_object(self._space, patch):
                if klp_is_object_loaded(obj):
                    await self._patch_object(patch, obj)
        except OSError:
            self._messages.log(*self._abi.enable_failed.format(patch=name))
            await transition.klp_cancel_transition()
            raise
        transition.klp_start_transition()
        patch.enabled = True
        await transition.klp_try_complete_transition()

    async def _patch_object(self, patch: Struct, obj: Struct) -> None:
        result = await self._callbacks.klp_pre_patch_callback(obj)
        if result:
            self._messages.pr_warn(f"pre-patch callback failed for object '{object_name(obj)}'")
            raise OSError(-result, "pre-patch callback")
        try:
            redirection = self._consistency.of(patch).redirection
            await self._functions.klp_patch_object(obj, redirection)
        except OSError:
            if self._abi.object_failed:
                self._messages.pr_warn(self._abi.object_failed.format(object=object_name(obj)))
            raise

    async def klp_disable(self, patch: Struct) -> None:
        """``__klp_disable_patch``. Raises OSError(EBUSY) during a transition, or if a model gives up."""
        transition = self._transition
        if self._universes.patch is not None:
            raise OSError(errno.EBUSY, "a transition is under way")
        if self._abi.disabling:
            self._messages.pr_notice(self._abi.disabling.format(patch=patch_name(patch)))
        transition.klp_init_transition(patch, KLP_UNPATCHED)
        for obj in klp_for_each_object(self._space, patch):
            if obj.patched:
                await self._callbacks.klp_pre_unpatch_callback(obj)
        transition.klp_start_transition()
        patch.enabled = False
        await transition.klp_try_complete_transition()


class EnabledLifecycle:
    """A patch is enabled once, by the init of its module, and freed when it is disabled or replaced.

    All of this is in place before the first module is loaded, so there is no ``klp_initialized``.
    """

    def __init__(
        self,
        common: Common,
        *,
        core: Core,
        init: PatchInit,
        free: PatchFree,
        transition: Transition,
        states: States,
        consistency: Consistency,
        modules: Modules,
    ) -> None:
        self._space = common.space
        self._universes = common.universes
        self._bugs = common.base.bugs
        self._core = core
        self._init = init
        self._free = free
        self._transition = transition
        self._states = states
        self._consistency = consistency
        self._modules = modules
        self._klp_mutex = common.klp_mutex
        self._messages = common.messages

    @service("klp_enable_patch")
    async def klp_enable_patch(self, address: Ptr) -> int:
        """Initialize the ``klp_patch`` at an address and enable it. Raises OSError, after log lines; then
        nothing is left of the patch."""
        patch = self._check(address)
        name = patch_name(patch)
        async with self._klp_mutex.held():
            if self._init.is_initialized(patch):
                # Linux would initialize its lists again while they are in use.
                self._bugs.warn("kernel/livepatch/core.c", 977, "klp_enable_patch")
                raise OSError(errno.EINVAL, "the patch is enabled")
            if not self._states.klp_is_patch_compatible(patch):
                self._messages.pr_err(
                    f"Livepatch patch ({name}) is not compatible with the already installed "
                    "livepatches."
                )
                raise OSError(errno.EINVAL, "incompatible states")
            self._consistency.choose(patch, name)
            if not self._modules.try_get(int(patch.mod)):
                raise OSError(errno.ENODEV, "the module is going")
            try:
                self._init.klp_init_patch_early(patch)
                self._init.klp_init_patch(patch, self.enabled_store)
                await self._core.klp_enable(patch)
            except (OSError, MemoryError, PageFault, limits.ListTooLong) as error:
                self._free.klp_free_patch_start(patch)
                self._free.klp_free_patch_finish(patch)
                if isinstance(error, MemoryError):
                    raise OSError(errno.ENOMEM, "no memory") from None
                raise
        return 0

    def _check(self, address: int) -> Struct:
        if not address:
            raise OSError(errno.EINVAL, "no patch")
        patch: Struct = self._space.view("struct klp_patch", address)
        if not patch.mod or not patch.objs:
            raise OSError(errno.EINVAL, "patch without module or objects")
        for obj in klp_for_each_object_static(patch):
            if not obj.funcs:
                raise OSError(errno.EINVAL, "object without functions")
        if not patch.mod.klp:
            self._messages.pr_err(f"module {patch_name(patch)} is not marked as a livepatch module")
            raise OSError(errno.EINVAL, "not a livepatch module")
        return patch

    async def enabled_store(self, patch: Struct, data: bytes) -> None:
        """Store what was written to ``enabled``: disable the patch, or reverse its transition. Raises
        OSError: EINVAL (no boolean, no change, or a disabled patch), EBUSY."""
        enabled = kstrtobool(data)
        async with self._klp_mutex.held():
            if bool(patch.enabled) == enabled:
                raise OSError(errno.EINVAL, "already in the requested state")
            if patch == self._universes.patch:
                await self._transition.klp_reverse_transition()
            elif not enabled:
                await self._core.klp_disable(patch)
            else:
                raise OSError(errno.EINVAL, "a disabled patch cannot be enabled again")
