# SPDX-License-Identifier: GPL-2.0-or-later
"""The four callbacks of an object. kernel/livepatch/core.h.

They run in the guest, on the task that enables or disables the patch or completes the transition.
"""

from __future__ import annotations

import errno
from typing import Protocol

from klpfs.machine.kernel.livepatch.common import KlpMutex
from klpfs.machine.kernel.sched.core import Scheduler
from klpfs.machine.kernel.sched.task import TaskExit
from klpfs.machine.structs import Struct


class Callbacks(Protocol):
    """The calls that the core makes. `older.callbacks.NoCallbacks` is for kernels before 4.15."""

    async def klp_pre_patch_callback(self, obj: Struct) -> int:
        """Call ``pre_patch`` before the object is patched. Return 0, or a negative errno that refuses it."""

    async def klp_post_patch_callback(self, obj: Struct) -> None:
        """Call ``post_patch`` when the transition to the patched state is complete."""

    async def klp_pre_unpatch_callback(self, obj: Struct) -> None:
        """Call ``pre_unpatch`` before the transition to the unpatched state starts."""

    async def klp_post_unpatch_callback(self, obj: Struct) -> None:
        """Call ``post_unpatch`` when the object is unpatched, if its ``pre_patch`` had succeeded."""


class ObjectCallbacks:
    """Calls the functions in ``klp_object.callbacks``. The caller holds klp_mutex.

    A callback that oopses counts as having returned: ``pre_patch`` with EFAULT, so that the patch is refused.
    """

    def __init__(self, sched: Scheduler, klp_mutex: KlpMutex) -> None:
        self._sched = sched
        self._klp_mutex = klp_mutex

    async def _call(self, function: int, obj: Struct) -> int:
        try:
            result = await self._sched.current.call(function, obj.address_) & 0xFFFFFFFF
        except TaskExit as exit_:
            self._klp_mutex.exit_later(exit_)
            return -errno.EFAULT
        return result - (1 << 32) if result >> 31 else result

    async def klp_pre_patch_callback(self, obj: Struct) -> int:
        callbacks = obj.callbacks
        result = await self._call(callbacks.pre_patch, obj) if callbacks.pre_patch else 0
        callbacks.post_unpatch_enabled = not result
        return result

    async def klp_post_patch_callback(self, obj: Struct) -> None:
        if obj.callbacks.post_patch:
            await self._call(obj.callbacks.post_patch, obj)

    async def klp_pre_unpatch_callback(self, obj: Struct) -> None:
        if obj.callbacks.pre_unpatch:
            await self._call(obj.callbacks.pre_unpatch, obj)

    async def klp_post_unpatch_callback(self, obj: Struct) -> None:
        callbacks = obj.callbacks
        if callbacks.post_unpatch_enabled and callbacks.post_unpatch:
            await self._call(callbacks.post_unpatch, obj)
        callbacks.post_unpatch_enabled = False
