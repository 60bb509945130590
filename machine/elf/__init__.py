# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocatable x86-64 kernel modules: how they are read, laid out in memory and relocated.

The errors, errnos and log lines are those of kernel/module/main.c, and of
arch/x86/kernel/module.c for relocations. Where the kernel trusts the file and would read or write
out of bounds, the module is refused here with ENOEXEC.
"""

from klpfs.machine.elf.errors import ElfError
from klpfs.machine.elf.format import (
    SHF_ALLOC,
    SHF_RELA_LIVEPATCH,
    SHN_ABS,
    SHN_COMMON,
    SHN_LIVEPATCH,
    SHN_UNDEF,
    SHT_NOBITS,
    SHT_NOTE,
    STB_WEAK,
)
from klpfs.machine.elf.module import ElfSymbol, Modinfo, ModuleImage, Relocation, Section
from klpfs.machine.elf.placement import Layout, Part, Place, layout
from klpfs.machine.elf.relocations import apply_relocations, clear_relocations

__all__ = [
    "SHF_ALLOC",
    "SHF_RELA_LIVEPATCH",
    "SHN_ABS",
    "SHN_COMMON",
    "SHN_LIVEPATCH",
    "SHN_UNDEF",
    "SHT_NOBITS",
    "SHT_NOTE",
    "STB_WEAK",
    "ElfError",
    "ElfSymbol",
    "Layout",
    "Modinfo",
    "ModuleImage",
    "Part",
    "Place",
    "Relocation",
    "Section",
    "apply_relocations",
    "clear_relocations",
    "layout",
]
