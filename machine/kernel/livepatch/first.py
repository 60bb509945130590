# SPDX-License-Identifier: GPL-2.0-or-later
"""The first livepatch core, of "Live patching for 3.20": a patch is enabled and disabled at once, and what
runs meanwhile finishes in the function that it began in. kernel/livepatch/core.c of Linux 4.0, which 3.20
became.

Nobody knows when the last task has left a patch, so its module is never let go.
"""

from __future__ import annotations

import errno
import re
from typing import Any

from klpfs.machine.kernel.livepatch.patch import klp_for_each_func, object_name
from klpfs.machine.kernel.livepatch.registered import RegisteredLivepatch
from klpfs.machine.kernel.livepatch.struct_relocs import StructRelocations
from klpfs.machine.kernel.oops.taint import Taint, Tainted
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_NOTICE, LOGLEVEL_WARNING
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct


class FirstLivepatch(RegisteredLivepatch):
    """As `RegisteredLivepatch`, without transitions; ``old_addr`` may say where a function is."""

    def __init__(
        self, *arguments: Any, relocations: StructRelocations, tainted: Tainted, **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._relocations = relocations
        self._tainted = tainted

    # -- registering ------------------------------------------------------------------------------

    def _check_module(self, patch: Struct, name: str) -> None:
        """Any module may have a patch."""

    def _hold_registered(self, patch: Struct) -> None:
        if not self._modules.try_get(int(patch.mod)):
            raise OSError(errno.ENODEV, "module is going")

    def _put_registered(self, patch: Struct) -> None:
        self._modules.put(int(patch.mod))

    def _init_object_loaded(self, patch: Struct, obj: Struct) -> None:
        self._relocations.write(patch, obj, self)
        for func in klp_for_each_func(self._space, obj):
            func.old_func = self._find_func(obj, func)

    def _find_func(self, obj: Struct, func: Struct) -> int:
        """``klp_find_verify_func_addr``."""
        name = func.old_name.string()
        if obj.name:
            return self.klp_find_object_symbol(object_name(obj), name, 0)
        if func.old_addr:
            self.verify_vmlinux_symbol(name, func.old_addr)
            return int(func.old_addr)
        return self.klp_find_object_symbol(None, name, 0)

    def verify_vmlinux_symbol(self, name: str, address: int) -> None:
        """``klp_verify_vmlinux_symbol``. Raises OSError(EINVAL)."""
        if address not in self._computer.symbols.all_named(name, None):
            self._say(
                LOGLEVEL_ERR,
                f"symbol '{name}' not found at specified address {address:#018x}, kernel mismatch?",
            )
            raise OSError(errno.EINVAL, f"{name} is not there")

    # -- enabling ---------------------------------------------------------------------------------

    @staticmethod
    def _enabled_from(data: bytes) -> bool:
        """``kstrtoul`` in base 10, and no other number than these."""
        number = re.fullmatch(rb"\+?0*([01])\n?", data.split(b"\0")[0])
        if number is None:
            raise OSError(errno.EINVAL, "neither 0 nor 1")
        return number[1] == b"1"

    def _hold_enabled(self, patch: Struct) -> None:
        sentence = "livepatch: tainting kernel with TAINT_LIVEPATCH"
        self._printk.once("__klp_enable_patch", LOGLEVEL_NOTICE, sentence)
        self._tainted.add(Taint.LIVEPATCH)

    def _put_enabled(self, patch: Struct) -> None:
        """The reference is that of a registered patch."""

    def _failed(self, name: str) -> None:
        self._say(LOGLEVEL_NOTICE, f"disabling patch '{name}'")

    async def _disable(self, patch: Struct) -> None:
        self._say(LOGLEVEL_NOTICE, f"disabling patch '{patch.mod.name.string()}'")
        await super()._disable(patch)

    # -- modules come and go ----------------------------------------------------------------------

    async def module_coming(self, module: Struct) -> None:
        """``klp_module_notify``: in the order in which the patches were registered, so that the last one
        is on top. A module that cannot be patched is not refused."""
        name = module.name.string()
        async with self._locked():
            module.klp_alive = True
            for patch in self.patches():
                obj = self._object_for(patch, name)
                if obj is None:
                    continue
                obj.mod = module
                try:
                    await self._apply_to_coming(patch, obj, name)
                except (OSError, PageFault) as error:
                    number = error.errno if isinstance(error, OSError) else errno.EFAULT
                    self._say(
                        LOGLEVEL_WARNING,
                        f"failed to apply patch '{patch.mod.name.string()}' to module '{name}' "
                        f"({-(number or 0)})",
                    )
                    self._free_object_loaded(patch, obj)

    async def _apply_to_coming(self, patch: Struct, obj: Struct, module: str) -> None:
        self._init_object_loaded(patch, obj)
        if patch.enabled:
            name = patch.mod.name.string()
            self._say(LOGLEVEL_NOTICE, f"applying patch '{name}' to loading module '{module}'")
            await self.redirection.patch_object(obj)
