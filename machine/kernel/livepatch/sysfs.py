# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of /sys/kernel/livepatch/<patch>/ and its objects. kernel/livepatch/core.c,
Documentation/ABI/testing/sysfs-kernel-livepatch.

``enabled`` is written to the lifecycle: `core.EnabledLifecycle.enabled_store`.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import partial

from klpfs.machine.kernel.kobject import KobjAttribute, kstrtobool
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.transition import Transition
from klpfs.machine.structs import Struct

EnabledStore = Callable[[Struct, bytes], Awaitable[None]]
"""Store what was written to the file ``enabled`` of a patch. Raises OSError."""


class Attributes:
    """The attributes of patches and of objects."""

    def __init__(self, common: Common, transition: Transition) -> None:
        self._patches = common.patches
        self._universes = common.universes
        self._transition = transition
        self._klp_mutex = common.klp_mutex
        self._abi = common.abi

    # -- of a patch -------------------------------------------------------------------------------

    def klp_patch_attrs(self, patch: Struct, enabled_store: EnabledStore) -> list[KobjAttribute]:
        """Return the files of a patch."""
        attributes = [
            KobjAttribute(
                "enabled", partial(self.enabled_show, patch), partial(enabled_store, patch)
            ),
            KobjAttribute("transition", partial(self.transition_show, patch)),
            KobjAttribute("force", None, partial(self.force_store, patch)),
            KobjAttribute("replace", partial(self.replace_show, patch)),
            KobjAttribute("stack_order", partial(self.stack_order_show, patch)),
        ]
        return [file for file in attributes if file.name in self._abi.patch_attributes]

    @staticmethod
    def enabled_show(patch: Struct) -> str:
        """``1`` for a patch that is enabled, or is being enabled; otherwise ``0``."""
        return f"{int(patch.enabled)}\n"

    def transition_show(self, patch: Struct) -> str:
        """``1`` for the patch in transition; otherwise ``0``."""
        return f"{int(patch == self._universes.patch)}\n"

    async def force_store(self, patch: Struct, data: bytes) -> None:
        """Force the transition of a patch. Raises OSError(EINVAL): the data is no boolean, or the patch
        is not in transition."""
        if not kstrtobool(data):
            return
        async with self._klp_mutex.held():
            if patch != self._universes.patch:
                raise OSError(errno.EINVAL, "this patch is not in transition")
            self._transition.klp_force_transition()

    @staticmethod
    def replace_show(patch: Struct) -> str:
        """``1`` for a patch with atomic replace; otherwise ``0``."""
        return f"{int(patch.replace)}\n"

    def stack_order_show(self, patch: Struct) -> str:
        """The position of a patch in the order in which patches were installed, from 1; or -1."""
        order = list(self._patches)
        return f"{order.index(patch) + 1 if patch in order else -1}\n"

    # -- of an object -----------------------------------------------------------------------------

    def klp_object_attrs(self, obj: Struct) -> list[KobjAttribute]:
        """Return the files of an object."""
        attributes = [KobjAttribute("patched", partial(self.patched_show, obj))]
        return [file for file in attributes if file.name in self._abi.object_attributes]

    @staticmethod
    def patched_show(obj: Struct) -> str:
        """``1`` for an object that is patched; otherwise ``0``."""
        return f"{int(obj.patched)}\n"
