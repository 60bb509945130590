# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch of Linux 4.0 says about an object that is loaded: ``old_addr`` and ``struct klp_reloc``.
kernel/livepatch/core.c of Linux 4.0."""

from __future__ import annotations

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.objects import klp_for_each_func, klp_is_module, object_name
from klpfs.machine.kernel.livepatch.older.struct_relocs import StructRelocations
from klpfs.machine.kernel.livepatch.older.symbols import klp_verify_vmlinux_symbol
from klpfs.machine.kernel.livepatch.symbols import Symbols
from klpfs.machine.structs import Struct


class OldLoadedObjects:
    """Replaces `loaded.SectionLoadedObjects`. The sizes of functions are not needed without transitions."""

    def __init__(
        self,
        common: Common,
        *,
        symbols: Symbols,
        relocations: StructRelocations,
    ) -> None:
        self._computer = common.base.computer
        self._symbols = symbols
        self._relocations = relocations
        self._messages = common.messages

    def klp_init_object_loaded(self, patch: Struct, obj: Struct) -> None:
        self._relocations.klp_write_object_relocations(patch, obj)
        for func in klp_for_each_func(self._computer.space, obj):
            func.old_func = self.klp_find_verify_func_addr(obj, func)

    def klp_find_verify_func_addr(self, obj: Struct, func: Struct) -> int:
        """Return the address of a function: ``old_addr``, which must be right, or that of its only
        symbol. Raises OSError(EINVAL), after a log line."""
        name = func.old_name.string()
        if klp_is_module(obj):
            return self._symbols.klp_find_object_symbol(object_name(obj), name, 0)
        if not func.old_addr:
            return self._symbols.klp_find_object_symbol(None, name, 0)
        klp_verify_vmlinux_symbol(self._computer.symbols, self._messages, name, func.old_addr)
        return int(func.old_addr)
