# SPDX-License-Identifier: GPL-2.0-or-later
"""Livepatch relocations: sections ``.klp.rela.<object>.<section>`` with relocations against symbols
``.klp.sym.<object>.<symbol>,<sympos>``. kernel/livepatch/core.c,
Documentation/livepatch/module-elf-format.rst.

Those for vmlinux are applied when the patch module is loaded, those for another module when both modules are
loaded.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from klpfs.machine.elf import (
    SHF_RELA_LIVEPATCH,
    SHN_LIVEPATCH,
    ElfError,
    Section,
    apply_relocations,
    clear_relocations,
)
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR

# The patterns of the kernel's sscanf() calls: ".klp.rela.%55[^.]" and ".klp.sym.%55[^.].%511[^,],%lu".
_SECTION = re.compile(r"\.klp\.rela\.([^.]{1,55})")
_SYMBOL = re.compile(r"\.klp\.sym\.([^.]{1,55})\.([^,]{1,511}),\s*(\d+)")


FindSymbol = Callable[[str | None, str, int], int]
"""``klp_find_object_symbol``: return the address of a symbol of an object (None: vmlinux) by its name and
position. With position 0 it must be the only one. Raises OSError(EINVAL), after a log line."""


class KlpRelocations:
    """The livepatch relocations of all modules: applies and clears them."""

    def __init__(self, base: Base, find_symbol: FindSymbol) -> None:
        self._computer = base.computer
        self._printk = base.printk
        self._find_symbol = find_symbol
        self._applied: WeakKeyDictionary[LoadedModule, set[int]] = WeakKeyDictionary()

    def klp_apply_object_relocs(self, module: LoadedModule, objname: str) -> None:
        """Apply the livepatch relocations of a patch module for one object (``vmlinux``, or a module's name).

        Raises OSError, after a log line: EINVAL (a malformed name, or a symbol that does not exist), ENOEXEC
        (a relocation that cannot be applied).
        """
        for section in self._sections(module, objname):
            self._klp_apply_section_relocs(module, section, objname)

    def _sections(self, module: LoadedModule, objname: str) -> Iterator[Section]:
        for section in module.elf.relocation_sections():
            if section.flags & SHF_RELA_LIVEPATCH and section.info in module.addresses:
                found = _SECTION.match(section.name)
                if not found:
                    raise self._refuse(f"section {section.name} has an incorrectly formatted name")
                if found[1] == objname:
                    yield section

    def _klp_apply_section_relocs(
        self, module: LoadedModule, section: Section, objname: str
    ) -> None:
        self._klp_resolve_symbols(module, section, objname)
        try:
            apply_relocations(
                module.name,
                module.elf.relocations(section),
                module.values,
                module.addresses[section.info],
                module.elf.sections[section.info].size,
                self._computer.memory.read,
                self._write,
            )
        except ElfError as error:
            self._print(error)
            raise OSError(error.errno, str(error)) from None
        self._applied.setdefault(module, set()).add(section.index)

    def _klp_resolve_symbols(self, module: LoadedModule, section: Section, objname: str) -> None:
        """Set the values of all symbols that the relocations of a section refer to."""
        for relocation in module.elf.relocations(section):
            index = relocation.symbol
            module.values[index] = self._resolve(module, index, objname)

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
        owner, name, sympos = found[1], found[2], int(found[3])
        if section_object != "vmlinux" and owner == "vmlinux":
            raise self._refuse(
                f"invalid access to vmlinux symbol '{name}' from module-specific livepatch "
                "relocation section"
            )
        return self._find_symbol(None if owner == "vmlinux" else owner, name, sympos)

    def klp_clear_object_relocs(self, module: LoadedModule, objname: str) -> None:
        """Set the places of the applied relocations for one object back to zero, so that they can be applied
        again. Stop in a section, after a log line, at a place that has been written meanwhile."""
        applied = self._applied.get(module, set())
        for section in self._sections(module, objname):
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
                self._print(error)

    def _write(self, address: int, data: bytes) -> None:
        self._computer.memory.write(address, data)
        self._computer.cpu.code_changed(address, len(data))

    def _print(self, error: ElfError) -> None:
        for line in error.lines:
            self._printk(error.level, line)

    def _refuse(self, sentence: str) -> OSError:
        self._printk(LOGLEVEL_ERR, f"livepatch: {sentence}")
        return OSError(errno.EINVAL, sentence)
