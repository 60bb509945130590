# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch core while patches were registered: ``klp_register_patch``, and from then on enabled and
disabled at will until ``klp_unregister_patch``. kernel/livepatch/core.c of Linux 4.12.

Registered patches form a stack: only the lowest disabled one can be enabled, only the highest enabled one
can be disabled.
"""

from __future__ import annotations

import errno

from klpfs.machine.kernel.livepatch.core import Livepatch
from klpfs.machine.kernel.livepatch.patch import klp_for_each_object
from klpfs.machine.kernel.livepatch.transition import KLP_PATCHED
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_NOTICE, LOGLEVEL_WARNING
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

_FILE = "kernel/livepatch/core.c"


class RegisteredLivepatch(Livepatch):
    """All registered patches of one kernel, enabled or not."""

    def _registered(self, address: int) -> Struct:
        """``klp_is_patch_registered``. Raises OSError(EINVAL) if it is not."""
        for patch in self.patches():
            if patch.address_ == address:
                return patch
        raise OSError(errno.EINVAL, "the patch is not registered")

    # -- the API ----------------------------------------------------------------------------------

    @service("klp_register_patch")
    async def klp_register_patch(self, address: Ptr) -> int:
        patch = self._space.view("struct klp_patch", address)
        if not address or not patch.mod:
            raise OSError(errno.EINVAL, "no patch, or one without a module")
        name = patch.mod.name.string()
        self._check_module(patch, name)
        if not patch.objs:
            raise OSError(errno.EINVAL, "patch without objects")
        async with self._locked():
            if patch.address_ in self._kobjects:
                # In Linux the kobject on which the directory depends would be made anew.
                self._printk(
                    LOGLEVEL_ERR,
                    f"kobject ({patch.member_address_('kobj'):016x}): tried to init an initialized "
                    "object, something is seriously wrong.",
                )
                self._traps.dump_stack()
                raise OSError(errno.EINVAL, "it is registered")
            self._hold_registered(patch)
            try:
                self._init_early(patch)
                self._init_patch(patch, name)
            except (OSError, MemoryError, PageFault) as error:
                self._free_start(patch)
                self._drop_kobject(patch.address_)
                self._put_registered(patch)
                if isinstance(error, MemoryError):
                    raise OSError(errno.ENOMEM, "no memory") from None
                raise
        return 0

    def _check_module(self, patch: Struct, name: str) -> None:
        if not patch.mod.klp:
            self._say(LOGLEVEL_ERR, f"module {name} is not marked as a livepatch module")
            raise OSError(errno.EINVAL, "not a livepatch module")

    def _hold_registered(self, patch: Struct) -> None:
        """Its model is chosen. It has no reference on its module, an enabled one has."""
        self.consistency.choose(patch, patch.mod.name.string())

    def _put_registered(self, patch: Struct) -> None:
        """It could not be registered after all."""

    @service("klp_unregister_patch")
    async def klp_unregister_patch(self, address: Ptr) -> int:
        async with self._locked():
            patch = self._registered(address)
            if patch.enabled or self._is_in_transition(patch):
                raise OSError(errno.EBUSY, "the patch is enabled")
            self._free_start(patch)
            self._drop_kobject(patch.address_)
        return 0

    @service("klp_enable_patch")
    async def klp_enable_patch(self, address: Ptr) -> int:
        async with self._locked():
            patch = self._registered(address)
            if patch.enabled:
                self._traps.warn(_FILE, 375, "__klp_enable_patch")
                raise OSError(errno.EINVAL, "the patch is enabled")
            await self._enable_registered(patch)
        return 0

    @service("klp_disable_patch")
    async def klp_disable_patch(self, address: Ptr) -> int:
        async with self._locked():
            patch = self._registered(address)
            if not patch.enabled:
                raise OSError(errno.EINVAL, "the patch is not enabled")
            await self._disable_registered(patch)
        return 0

    async def _store_enabled(self, patch: Struct, enabled: bool) -> None:
        async with self._locked():
            self._registered(patch.address_)
            if bool(patch.enabled) == enabled:
                raise OSError(errno.EINVAL, "already in the requested state")
            if self._is_in_transition(patch):
                await self.transition.reverse()
            elif enabled:
                await self._enable_registered(patch)
            else:
                await self._disable_registered(patch)

    # -- the stack --------------------------------------------------------------------------------

    def _neighbours(self, patch: Struct) -> tuple[Struct | None, Struct | None]:
        """The patches that were registered just before and just after this one."""
        patches = [None, *self.patches(), None]
        at = next(i for i, other in enumerate(patches) if other == patch)
        return patches[at - 1], patches[at + 1]

    async def _enable_registered(self, patch: Struct) -> None:
        """``__klp_enable_patch``. Raises OSError(EBUSY): a patch under it is disabled."""
        if self.transition.patch is not None:
            raise OSError(errno.EBUSY, "a transition is under way")
        below, _ = self._neighbours(patch)
        if below is not None and not below.enabled:
            raise OSError(errno.EBUSY, "a patch under it is disabled")
        self._hold_enabled(patch)
        name = patch.mod.name.string()
        self._say(LOGLEVEL_NOTICE, f"enabling patch '{name}'")
        self.transition.init(patch, KLP_PATCHED)
        try:
            for obj in klp_for_each_object(self._space, patch):
                if obj.mod or not obj.name:
                    await self.redirection.patch_object(obj, self._way(patch))
        except OSError:
            self._failed(name)
            await self.transition.cancel()
            self._put_enabled(patch)
            raise
        self.transition.start()
        patch.enabled = True
        try:
            await self._try_complete()
        except OSError:  # it gave up
            self._put_enabled(patch)
            raise

    async def _disable_registered(self, patch: Struct) -> None:
        """``__klp_disable_patch``. Raises OSError(EBUSY): a patch on top of it is enabled."""
        _, above = self._neighbours(patch)
        if above is not None and above.enabled:
            raise OSError(errno.EBUSY, "a patch on top of it is enabled")
        await self._disable(patch)

    async def _try_complete(self) -> None:
        patch = self.transition.patch
        if patch is not None and patch.immediate:
            self.transition.move_all()
        await super()._try_complete()

    def _hold_enabled(self, patch: Struct) -> None:
        if not self._modules.try_get(int(patch.mod)):
            raise OSError(errno.ENODEV, "module is going")

    def _put_enabled(self, patch: Struct) -> None:
        """Nothing runs in its module any more; of one that was immediate nobody knows that."""
        immediate = patch.immediate or any(
            func.immediate
            for obj in self._static_objects(patch)
            for func in self._static_funcs(obj)
        )
        if not immediate:
            self._modules.put(int(patch.mod))

    def _failed(self, name: str) -> None:
        self._say(LOGLEVEL_WARNING, f"failed to enable patch '{name}'")

    def _completed(self, patch: Struct) -> None:
        """It stays registered, enabled or not."""
        if not patch.enabled:
            self._put_enabled(patch)

    def _is_applied(self, patch: Struct) -> bool:
        return bool(patch.enabled) or self._is_in_transition(patch)
