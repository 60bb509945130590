# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocations that a patch gives as an array of ``struct klp_reloc``, which is how it was before they were
sections of the module's file. kernel/livepatch/core.c and arch/x86/kernel/livepatch.c of Linux 4.0."""

from __future__ import annotations

import errno
from typing import Protocol

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.livepatch.patch import object_name
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, Printk
from klpfs.machine.structs import Struct

_R_X86_64_NONE, _R_X86_64_64, _R_X86_64_PC32, _R_X86_64_32, _R_X86_64_32S = 0, 1, 2, 10, 11


class Symbols(Protocol):
    """What is asked of the core."""

    def klp_find_object_symbol(self, module: str | None, name: str, sympos: int) -> int:
        """``klp_find_object_symbol``."""

    def verify_vmlinux_symbol(self, name: str, address: int) -> None:
        """``klp_verify_vmlinux_symbol``."""


class Exports(Protocol):
    """What is asked of the module loader."""

    def find_export(self, name: str) -> int | None:
        """``find_symbol``: the address of what the kernel or a module exports."""


class StructRelocations:
    """Writes them, for an object that is there."""

    def __init__(self, computer: Computer, printk: Printk, exports: Exports) -> None:
        self._computer = computer
        self._printk = printk
        self._exports = exports

    def write(self, patch: Struct, obj: Struct, symbols: Symbols) -> None:
        """``klp_write_object_relocations``. Raises OSError(EINVAL), after a line in the log."""
        if not obj.relocs:
            return
        i = 0
        while (reloc := obj.relocs[i]).name:
            name = reloc.name.string()
            if not obj.name:
                symbols.verify_vmlinux_symbol(name, reloc.val)
            elif not reloc.external:
                reloc.val = symbols.klp_find_object_symbol(object_name(obj), name, 0)
            else:
                exported = self._exports.find_export(name)
                reloc.val = exported or symbols.klp_find_object_symbol(
                    patch.mod.name.string(), name, 0
                )
            self._write_one(patch.mod.core_layout, reloc, name)
            i += 1

    def _write_one(self, core: Struct, reloc: Struct, name: str) -> None:
        """``klp_write_module_reloc``."""
        value, size = reloc.val + reloc.addend, 4
        if reloc.type == _R_X86_64_NONE:
            return
        if reloc.type == _R_X86_64_64:
            size = 8
        elif reloc.type == _R_X86_64_PC32:
            value -= reloc.loc
        known = reloc.type in (_R_X86_64_64, _R_X86_64_PC32, _R_X86_64_32, _R_X86_64_32S)
        inside = int(core.base) <= reloc.loc < int(core.base) + core.size
        if not known or not inside:
            self._printk(
                LOGLEVEL_ERR,
                f"livepatch: relocation failed for symbol '{name}' at {reloc.val:#018x} "
                f"({-errno.EINVAL})",
            )
            raise OSError(errno.EINVAL, "relocation")
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._computer.memory.write(reloc.loc, data)
        self._computer.cpu.code_changed(reloc.loc, size)
