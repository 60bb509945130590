# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocations of a patch that only the livepatch core can resolve: ``.klp.rela.<object>.<section>``
against ``.klp.sym.<object>.<symbol>,<pos>``. kernel/livepatch/core.c,
Documentation/livepatch/module-elf-format.rst.

Those for vmlinux are applied when the patch loads, those for a module when that module is there.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from klpfs.machine.computer import Computer
from klpfs.machine.elf import (
    SHF_RELA_LIVEPATCH,
    SHN_LIVEPATCH,
    ElfError,
    Section,
    apply_relocations,
    clear_relocations,
)
from klpfs.machine.kernel.module.load import LoadedModule
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, Printk

# As sscanf() understands ".klp.rela.%55[^.]" and ".klp.sym.%55[^.].%511[^,],%lu".
_SECTION = re.compile(r"\.klp\.rela\.([^.]{1,55})")
_SYMBOL = re.compile(r"\.klp\.sym\.([^.]{1,55})\.([^,]{1,511}),\s*(\d+)")


FindSymbol = Callable[[str | None, str, int], int]
"""``klp_find_object_symbol``: the address of a symbol of an object, by its name and position. Raises
OSError."""


class KlpRelocations:
    """Applies and clears them."""

    def __init__(self, computer: Computer, printk: Printk, find_symbol: FindSymbol) -> None:
        self._computer = computer
        self._printk = printk
        self._find_symbol = find_symbol
        self._applied: WeakKeyDictionary[LoadedModule, set[int]] = WeakKeyDictionary()

    def _refuse(self, sentence: str) -> OSError:
        self._printk(LOGLEVEL_ERR, f"livepatch: {sentence}")
        return OSError(errno.EINVAL, sentence)

    def _sections(self, module: LoadedModule, object_name: str) -> Iterator[Section]:
        for section in module.elf.relocation_sections():
            if section.flags & SHF_RELA_LIVEPATCH and section.info in module.addresses:
                found = _SECTION.match(section.name)
                if not found:
                    raise self._refuse(f"section {section.name} has an incorrectly formatted name")
                if found[1] == object_name:
                    yield section

    def apply(self, module: LoadedModule, object_name: str) -> None:
        """``klp_apply_section_relocs``. Raises OSError: EINVAL (names that are none, symbols that are
        not there), ENOEXEC (the relocation itself), after a line in the log."""
        memory, applied = self._computer.memory, self._applied.setdefault(module, set())
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
                self._log(error)
                raise OSError(error.errno, str(error)) from None
            applied.add(section.index)

    def _log(self, error: ElfError) -> None:
        for line in error.lines:
            self._printk(error.level, line)

    def clear(self, module: LoadedModule, object_name: str) -> None:
        """``klp_clear_object_relocs``: as if they had never been applied. What somebody has changed
        since then stays as it is, and the log says so."""
        applied = self._applied.get(module, set())
        for section in self._sections(module, object_name):
            if section.index not in applied:
                continue
            applied.discard(section.index)
            try:
                clear_relocations(
                    module.name,
                    module.elf.relocations(section),
                    module.values,
                    module.addresses[section.info],
                    module.elf.sections[section.info].size,
                    self._computer.memory.read,
                    self._write,
                )
            except ElfError as error:
                self._log(error)

    def _write(self, address: int, data: bytes) -> None:
        self._computer.memory.write(address, data)
        self._computer.cpu.code_changed(address, len(data))

    def _resolve(self, module: LoadedModule, index: int, section_object: str) -> int:
        if index >= len(module.elf.symbols):
            self._printk(
                LOGLEVEL_ERR, f"{module.name}: a livepatch relocation has no symbol {index}"
            )
            raise OSError(errno.ENOEXEC, "a relocation without a symbol")
        symbol = module.elf.symbols[index]
        if symbol.shndx != SHN_LIVEPATCH:
            raise self._refuse(f"symbol {symbol.name} is not marked as a livepatch symbol")
        found = _SYMBOL.match(symbol.name)
        if not found:
            raise self._refuse(f"symbol {symbol.name} has an incorrectly formatted name")
        owner, name, position = found[1], found[2], int(found[3])
        if section_object != "vmlinux" and owner == "vmlinux":
            raise self._refuse(
                f"invalid access to vmlinux symbol '{name}' from module-specific livepatch "
                "relocation section"
            )
        return self._find_symbol(None if owner == "vmlinux" else owner, name, position)
