# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that are registered, then enabled and disabled at will until they are unregistered, as before
Linux 5.1. kernel/livepatch/core.c of Linux 4.12.

Registered patches form a stack: only the lowest disabled one can be enabled, and only the highest enabled
one can be disabled.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.consistency.choice import Consistency
from klpfs.machine.kernel.livepatch.core import Core
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.init import PatchInit
from klpfs.machine.kernel.livepatch.objects import patch_name
from klpfs.machine.kernel.livepatch.older.references import References
from klpfs.machine.kernel.livepatch.transition import Transition
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

ParseEnabled = Callable[[bytes], bool]
"""Return what was written to ``enabled``. Raises OSError(EINVAL)."""


class RegisteredLifecycle:
    """Replaces `core.EnabledLifecycle`."""

    def __init__(
        self,
        common: Common,
        *,
        core: Core,
        init: PatchInit,
        free: PatchFree,
        transition: Transition,
        consistency: Consistency,
        references: References,
        parse_enabled: ParseEnabled,
    ) -> None:
        self._space = common.space
        self._universes = common.universes
        self._printk = common.base.printk
        self._bugs = common.base.bugs
        self._dumpstack = common.base.dumpstack
        self._core = core
        self._init = init
        self._free = free
        self._patches = common.patches
        self._transition = transition
        self._consistency = consistency
        self._references = references
        self._parse_enabled = parse_enabled
        self._klp_mutex = common.klp_mutex
        self._messages = common.messages
        self._abi = common.abi

    # -- the API ----------------------------------------------------------------------------------

    @service("klp_register_patch")
    async def klp_register_patch(self, address: Ptr) -> int:
        """Initialize the ``klp_patch`` at an address and install it, disabled. Raises OSError, after log
        lines."""
        patch = self._space.view("struct klp_patch", address)
        if not address or not patch.mod:
            raise OSError(errno.EINVAL, "no patch, or one without a module")
        if self._abi.marked and not patch.mod.klp:
            self._messages.pr_err(f"module {patch_name(patch)} is not marked as a livepatch module")
            raise OSError(errno.EINVAL, "not a livepatch module")
        if not patch.objs:
            raise OSError(errno.EINVAL, "patch without objects")
        async with self._klp_mutex.held():
            self._check_new(patch)
            self._consistency.choose(patch, patch_name(patch))
            self._references.registering(patch)
            try:
                self._init.klp_init_patch_early(patch)
                self._init.klp_init_patch(patch, self.enabled_store)
            except (OSError, MemoryError, PageFault) as error:
                self._free.klp_free_patch(patch)
                self._references.register_failed(patch)
                if isinstance(error, MemoryError):
                    raise OSError(errno.ENOMEM, "no memory") from None
                raise
        return 0

    def _check_new(self, patch: Struct) -> None:
        if self._init.is_initialized(patch):
            # Linux would initialize again the kobject that the directory depends on.
            self._printk(
                LOGLEVEL_ERR,
                f"kobject ({patch.member_address_('kobj'):016x}): tried to init an initialized "
                "object, something is seriously wrong.",
            )
            self._dumpstack.dump_stack()
            raise OSError(errno.EINVAL, "the patch is registered")

    @service("klp_unregister_patch")
    async def klp_unregister_patch(self, address: Ptr) -> int:
        """Free a disabled patch. Raises OSError: EINVAL (not registered), EBUSY (enabled or in
        transition)."""
        async with self._klp_mutex.held():
            patch = self.klp_is_patch_registered(address)
            if patch.enabled or patch == self._universes.patch:
                raise OSError(errno.EBUSY, "the patch is enabled")
            self._free.klp_free_patch(patch)
        return 0

    @service("klp_enable_patch")
    async def klp_enable_patch(self, address: Ptr) -> int:
        """Enable a registered patch. Raises OSError: EINVAL (not registered, or enabled), EBUSY (the
        patch under it is disabled, or a transition is under way), or what prevents it."""
        async with self._klp_mutex.held():
            patch = self.klp_is_patch_registered(address)
            if patch.enabled:
                self._bugs.warn("kernel/livepatch/core.c", 375, "__klp_enable_patch")
                raise OSError(errno.EINVAL, "the patch is enabled")
            await self._enable(patch)
        return 0

    @service("klp_disable_patch")
    async def klp_disable_patch(self, address: Ptr) -> int:
        """Disable a registered patch. Raises OSError: EINVAL (not registered, or disabled), EBUSY (the
        patch on top of it is enabled, or a transition is under way)."""
        async with self._klp_mutex.held():
            patch = self.klp_is_patch_registered(address)
            if not patch.enabled:
                raise OSError(errno.EINVAL, "the patch is not enabled")
            await self._disable(patch)
        return 0

    async def enabled_store(self, patch: Struct, data: bytes) -> None:
        """Store what was written to ``enabled``: enable or disable the patch, or reverse its transition.
        Raises OSError: EINVAL (no number of these, or no change), EBUSY."""
        enabled = self._parse_enabled(data)
        async with self._klp_mutex.held():
            self.klp_is_patch_registered(patch.address_)
            if bool(patch.enabled) == enabled:
                raise OSError(errno.EINVAL, "already in the requested state")
            if patch == self._universes.patch:
                await self._transition.klp_reverse_transition()
            elif enabled:
                await self._enable(patch)
            else:
                await self._disable(patch)

    def klp_is_patch_registered(self, address: int) -> Struct:
        """Return the registered patch at an address. Raises OSError(EINVAL) if there is none."""
        for patch in self._patches:
            if patch.address_ == address:
                return patch
        raise OSError(errno.EINVAL, "the patch is not registered")

    # -- the stack --------------------------------------------------------------------------------

    def _neighbours(self, patch: Struct) -> tuple[Struct | None, Struct | None]:
        """Return the patches that were registered just before and just after this one."""
        patches = [None, *self._patches, None]
        at = patches.index(patch)
        return patches[at - 1], patches[at + 1]

    async def _enable(self, patch: Struct) -> None:
        if self._universes.patch is not None:
            raise OSError(errno.EBUSY, "a transition is under way")
        below, _ = self._neighbours(patch)
        if below is not None and not below.enabled:
            raise OSError(errno.EBUSY, "the patch under it is disabled")
        self._references.enabling(patch)
        try:
            await self._core.klp_enable(patch)
        except OSError:
            self._references.enable_failed(patch)
            raise

    async def _disable(self, patch: Struct) -> None:
        _, above = self._neighbours(patch)
        if above is not None and above.enabled:
            raise OSError(errno.EBUSY, "the patch on top of it is enabled")
        await self._core.klp_disable(patch)


def parse_0_or_1(data: bytes) -> bool:
    """Return what was written to ``enabled`` in Linux 4.0, where ``kstrtoul`` reads it in base 10. Raises
    OSError(EINVAL) for anything but 0 and 1."""
    number = re.fullmatch(rb"\+?0*([01])\n?", data.split(b"\0")[0])
    if number is None:
        raise OSError(errno.EINVAL, "neither 0 nor 1")
    return number[1] == b"1"
