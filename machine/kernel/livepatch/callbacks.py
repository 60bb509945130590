# SPDX-License-Identifier: GPL-2.0-or-later
"""The four callbacks of an object, kernel/livepatch/core.h. They run in the guest, on the task that
enables, disables, or completes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.task import TaskExit
from klpfs.machine.structs import Struct


class Callbacks:
    """Calls what a ``klp_object`` has in ``callbacks``."""

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched
        self._dead: dict[Task, TaskExit] = {}

    @contextmanager
    def outlived(self) -> Iterator[None]:
        """The body comes to its end even if its task dies in a callback; the TaskExit follows then.

        Linux leaves klp_mutex locked for ever, and a transition that nobody can end. Here a callback
        that dies has returned: pre_patch with an error, so that the patch is refused.
        """
        try:
            yield
        finally:
            death = self._dead.pop(self._sched.current, None)
            if death is not None:
                raise death

    async def _call(self, function: int, obj: Struct) -> int:
        task = self._sched.current
        try:
            result = await task.call(function, obj.address_) & 0xFFFFFFFF
        except TaskExit as death:
            self._dead.setdefault(task, death)
            return -errno.EFAULT
        return result - (1 << 32) if result >> 31 else result

    async def pre_patch(self, obj: Struct) -> int:
        """Before the object is patched; a negative errno refuses it."""
        callbacks = obj.callbacks
        result = await self._call(callbacks.pre_patch, obj) if callbacks.pre_patch else 0
        callbacks.post_unpatch_enabled = not result
        return result

    async def post_patch(self, obj: Struct) -> None:
        """When the transition to the patched state is complete."""
        if obj.callbacks.post_patch:
            await self._call(obj.callbacks.post_patch, obj)

    async def pre_unpatch(self, obj: Struct) -> None:
        """Before the transition back begins."""
        if obj.callbacks.pre_unpatch:
            await self._call(obj.callbacks.pre_unpatch, obj)

    async def post_unpatch(self, obj: Struct) -> None:
        """When the object is unpatched, if its pre_patch had succeeded."""
        callbacks = obj.callbacks
        if callbacks.post_unpatch_enabled and callbacks.post_unpatch:
            await self._call(callbacks.post_unpatch, obj)
        callbacks.post_unpatch_enabled = False


class NoCallbacks(Callbacks):
    """Of an object that has none to call, before they came with 4.15."""

    async def pre_patch(self, obj: Struct) -> int:
        return 0

    async def post_patch(self, obj: Struct) -> None:
        return

    async def pre_unpatch(self, obj: Struct) -> None:
        return

    async def post_unpatch(self, obj: Struct) -> None:
        return
