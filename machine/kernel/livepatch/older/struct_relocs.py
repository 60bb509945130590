# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocations in an array of ``struct klp_reloc``, as before they were sections of the patch module.
kernel/livepatch/core.c and arch/x86/kernel/livepatch.c of Linux 4.0."""

from __future__ import annotations

import errno

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.objects import klp_is_module, object_name, patch_name
from klpfs.machine.kernel.livepatch.older.symbols import klp_verify_vmlinux_symbol
from klpfs.machine.kernel.livepatch.symbols import Symbols
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.structs import Struct

_R_X86_64_NONE, _R_X86_64_64, _R_X86_64_PC32, _R_X86_64_32, _R_X86_64_32S = 0, 1, 2, 10, 11


class StructRelocations:
    """Applies the relocations of a patch for an object that is loaded."""

    def __init__(self, common: Common, *, symbols: Symbols, modules: Modules) -> None:
        self._computer = common.base.computer
        self._symbols = symbols
        self._modules = modules
        self._messages = common.messages

    def klp_write_object_relocations(self, patch: Struct, obj: Struct) -> None:
        """Apply them. Raises OSError(EINVAL), after a log line."""
        if not obj.relocs:
            return
        i = 0
        while (reloc := obj.relocs[i]).name:
            self._resolve(patch, obj, reloc)
            self.klp_write_module_reloc(int(patch.mod), reloc)
            i += 1

    def _resolve(self, patch: Struct, obj: Struct, reloc: Struct) -> None:
        """Set or check the value of a relocation."""
        name, find = reloc.name.string(), self._symbols.klp_find_object_symbol
        if not klp_is_module(obj):
            klp_verify_vmlinux_symbol(self._computer.symbols, self._messages, name, reloc.val)
        elif not reloc.external:
            reloc.val = find(object_name(obj), name, 0)
        else:
            reloc.val = self._modules.find_export(name) or find(patch_name(patch), name, 0)

    def klp_write_module_reloc(self, module: int, reloc: Struct) -> None:
        """Write one relocation; it must be in the memory of the module. Raises OSError(EINVAL)."""
        value, size = reloc.val + reloc.addend, 4
        if reloc.type == _R_X86_64_NONE:
            return
        if reloc.type == _R_X86_64_64:
            size = 8
        elif reloc.type == _R_X86_64_PC32:
            value -= reloc.loc
        known = reloc.type in (_R_X86_64_64, _R_X86_64_PC32, _R_X86_64_32, _R_X86_64_32S)
        inside = self._modules.within_module_core(reloc.loc, module)
        if not known or not inside:
            self._messages.pr_err(
                f"relocation failed for symbol '{reloc.name.string()}' at {reloc.val:#018x} "
                f"({-errno.EINVAL})"
            )
            raise OSError(errno.EINVAL, "relocation")
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._computer.memory.write(reloc.loc, data)
        self._computer.cpu.code_changed(reloc.loc, size)
