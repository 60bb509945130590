# SPDX-License-Identifier: GPL-2.0-or-later
"""When a registered patch holds a reference on its module. kernel/livepatch/core.c of Linux 4.12 and 4.0."""

from __future__ import annotations

import errno
from typing import Protocol

from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func_static,
    klp_for_each_object_static,
)
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.kernel.oops.taint import Taint, Tainted
from klpfs.machine.kernel.printk.printk import LOGLEVEL_NOTICE, Printk
from klpfs.machine.structs import Struct


class References(Protocol):
    """Takes and releases the references. A module cannot be unloaded while there is one."""

    def registering(self, patch: Struct) -> None:
        """Called before a patch is registered. Raises OSError(ENODEV) if its module is going."""

    def register_failed(self, patch: Struct) -> None:
        """Undo `registering`."""

    def enabling(self, patch: Struct) -> None:
        """Called before a patch is enabled. Raises OSError(ENODEV) if its module is going."""

    def enable_failed(self, patch: Struct) -> None:
        """Undo `enabling`."""

    def transition_completed(self, patch: Struct) -> None:
        """Called when the transition of a patch is complete. See `transition.OnComplete`."""


class ReferencesWhileEnabled:
    """Linux 4.12: a patch holds its module while it is enabled or in transition.

    After a transition no task is in the code of the module. That is not known of a patch that is
    ``immediate`` or has a function that is; it keeps the reference.
    """

    def __init__(self, modules: Modules) -> None:
        self._modules = modules

    def registering(self, patch: Struct) -> None:
        return

    def register_failed(self, patch: Struct) -> None:
        return

    def enabling(self, patch: Struct) -> None:
        if not self._modules.try_get(int(patch.mod)):
            raise OSError(errno.ENODEV, "the module is going")

    def enable_failed(self, patch: Struct) -> None:
        self._release(patch)

    def transition_completed(self, patch: Struct) -> None:
        if not patch.enabled:
            self._release(patch)

    def _release(self, patch: Struct) -> None:
        immediate = patch.immediate or any(
            func.immediate
            for obj in klp_for_each_object_static(patch)
            for func in klp_for_each_func_static(obj)
        )
        if not immediate:
            self._modules.put(int(patch.mod))


class ReferencesForever:
    """Linux 4.0: a patch holds its module from when it is registered, forever, because without
    transitions it is not known whether a task is in the code of the module. The first patch that is
    enabled taints the kernel."""

    def __init__(self, modules: Modules, *, printk: Printk, tainted: Tainted) -> None:
        self._modules = modules
        self._printk = printk
        self._tainted = tainted

    def registering(self, patch: Struct) -> None:
        if not self._modules.try_get(int(patch.mod)):
            raise OSError(errno.ENODEV, "the module is going")

    def register_failed(self, patch: Struct) -> None:
        self._modules.put(int(patch.mod))

    def enabling(self, patch: Struct) -> None:
        sentence = "livepatch: tainting kernel with TAINT_LIVEPATCH"
        self._printk.once("__klp_enable_patch", LOGLEVEL_NOTICE, sentence)
        self._tainted.add(Taint.LIVEPATCH)

    def enable_failed(self, patch: Struct) -> None:
        return

    def transition_completed(self, patch: Struct) -> None:
        return
