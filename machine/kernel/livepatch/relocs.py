# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocations of a patch that only the livepatch core can resolve: ``.klp.rela.<object>.<section>``
against ``.klp.sym.<object>.<symbol>,<pos>``. kernel/livepatch/core.c,
Documentation/livepatch/module-elf-format.rst.

Those for vmlinux are applied when the patch loads, those for a module when that module is there.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from machine.computer import Computer
from machine.elf import (
    SHF_RELA_LIVEPATCH,
    SHN_LIVEPATCH,
    ElfError,
    Section,
    apply_relocations,
    clear_relocations,
)
from machine.kernel import printk as log
from machine.kernel.printk import Printk

if TYPE_CHECKING:
    from machine.kernel.module import Modules
    from machine.kernel.module_load import LoadedModule

_SECTION = re.compile(r"\.klp\.rela\.([^.]{1,55})\..")
_SYMBOL = re.compile(r"\.klp\.sym\.([^.]{1,55})\.([^,]{1,511}),(\d+)")


class KlpRelocations:
    """Applies and clears them."""

    def __init__(self, computer: Computer, printk: Printk, modules: Modules) -> None:
        self._computer = computer
        self._printk = printk
        self._modules = modules

    def _refuse(self, sentence: str) -> OSError:
        self._printk(log.ERR, f"livepatch: {sentence}")
        return OSError(errno.EINVAL, sentence)

    def _sections(self, module: LoadedModule, object_name: str) -> Iterator[Section]:
        for section in module.elf.relocation_sections():
            if section.flags & SHF_RELA_LIVEPATCH:
                found = _SECTION.match(section.name)
                if not found:
                    raise self._refuse(f"section {section.name} has an incorrectly formatted name")
                if found[1] == object_name:
                    yield section

    def apply(self, module: LoadedModule, object_name: str) -> None:
        """``klp_apply_section_relocs``. Raises OSError: EINVAL (names that are none, symbols that are
        not there), ENOEXEC (the relocation itself), after a line in the log."""
        memory = self._computer.memory
        for section in self._sections(module, object_name):
            for relocation in module.elf.relocations(section):
                module.values[relocation.symbol] = self._resolve(
                    module, relocation.symbol, object_name
                )
            try:
                apply_relocations(
                    module.name,
                    module.elf.relocations(section),
                    module.values,
                    module.addresses[section.info],
                    module.elf.sections[section.info].size,
                    memory.read,
                    self._write,
                )
            except ElfError as error:
                for line in error.lines:
                    self._printk(error.level, line)
                raise OSError(error.errno, str(error)) from None

    def clear(self, module: LoadedModule, object_name: str) -> None:
        """``klp_clear_object_relocs``: as if they had never been applied."""
        for section in self._sections(module, object_name):
            clear_relocations(
                module.name,
                module.elf.relocations(section),
                module.values,
                module.addresses[section.info],
                module.elf.sections[section.info].size,
                self._computer.memory.read,
                self._write,
            )

    def _write(self, address: int, data: bytes) -> None:
        self._computer.memory.write(address, data)
        self._computer.cpu.code_changed(address, len(data))

    def _resolve(self, module: LoadedModule, index: int, section_object: str) -> int:
        symbol = module.elf.symbols[index]
        if symbol.shndx != SHN_LIVEPATCH:
            raise self._refuse(f"symbol {symbol.name} is not marked as a livepatch symbol")
        found = _SYMBOL.fullmatch(symbol.name)
        if not found:
            raise self._refuse(f"symbol {symbol.name} has an incorrectly formatted name")
        owner, name, position = found[1], found[2], int(found[3])
        if section_object != "vmlinux" and owner == "vmlinux":
            raise self._refuse(
                f"invalid access to vmlinux symbol '{name}' from module-specific livepatch "
                "relocation section"
            )
        return self._modules.livepatch.find_symbol(
            None if owner == "vmlinux" else owner, name, position
        )
