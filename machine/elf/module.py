# SPDX-License-Identifier: GPL-2.0-or-later
"""The content of a module's file: sections, symbols, .modinfo, relocations."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from klpfs.machine import limits
from klpfs.machine.elf.errors import KERN_WARNING, ElfError, refuse
from klpfs.machine.elf.format import (
    RELA,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_RELA_LIVEPATCH,
    SHF_RO_AFTER_INIT,
    SHF_WRITE,
    SHN_ABS,
    SHN_UNDEF,
    SHT_NOBITS,
    SHT_NULL,
    SHT_REL,
    SHT_RELA,
    SHT_SYMTAB,
    STB_WEAK,
    STT_OBJECT,
    SYM,
)
from klpfs.machine.elf.validity import SectionHeader, elf_validity_check

_KSYM_NAME_LEN = 512
_MODULE_NAME = slice(24, 24 + 56)  # struct module: state, list, then char name[MODULE_NAME_LEN]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a module.

    ``flags`` are as the loader leaves them (``rewrite_section_headers``, ``layout_and_allocate``):
    .modinfo and __versions are not loaded, so they lack SHF_ALLOC; .data..ro_after_init and
    __jump_table have SHF_RO_AFTER_INIT. ``data`` is empty for SHT_NOBITS.
    """

    index: int
    name: str
    type: int
    flags: int
    addralign: int
    size: int
    link: int
    info: int
    entsize: int
    data: memoryview

    @property
    def is_init(self) -> bool:
        """True if it is freed after the module's init (``module_init_section``)."""
        return self.name.startswith(".init")


class ElfSymbol(NamedTuple):
    """A symbol as in the file: ``value`` is an offset in bytes into section ``shndx``."""

    name: str
    value: int
    size: int
    bind: int
    type: int
    shndx: int


class Relocation(NamedTuple):
    """``Elf64_Rela``: ``offset`` in bytes in the target section, ``symbol`` as its index."""

    offset: int
    type: int
    symbol: int
    addend: int


class Modinfo:
    """The ``tag=value`` strings of .modinfo, in order. A tag can have several values."""

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self.items: tuple[tuple[str, str], ...] = tuple(items)

    def get(self, tag: str) -> str | None:
        """Return the first value of a tag, or None (``get_modinfo``)."""
        return next(self.all(tag), None)

    def all(self, tag: str) -> Iterator[str]:
        """Yield every value of a tag."""
        return (value for name, value in self.items if name == tag)

    @classmethod
    def parse(cls, data: bytes) -> Modinfo:
        """Read the content of .modinfo. Strings without ``=`` are left out."""
        strings = (part.partition(b"=") for part in data.split(b"\0"))
        return cls((_decode(tag), _decode(value)) for tag, equals, value in strings if equals)


@dataclass(frozen=True)
class ModuleImage:
    """The checked content of a module's file.

    ``sections`` has the indexes of the file; section 0 is empty. ``symtab``, ``this_module``,
    ``versions`` and ``percpu`` are such indexes, 0 if the module has no such section. ``percpu``
    is 0 without SMP.
    """

    name: str
    sections: tuple[Section, ...]
    modinfo: Modinfo
    symtab: int
    this_module: int
    versions: int
    percpu: int

    @classmethod
    def parse(cls, data: bytes, *, smp: bool = False) -> ModuleImage:
        """Read a .ko file. Raise ElfError.

        The checks are those of ``elf_validity_check`` and ``setup_load_info``, in their order.
        With ``smp``, .data..percpu is left to the per-CPU allocator; else it is ordinary data.
        """
        headers, names = elf_validity_check(data)

        def view(header: SectionHeader) -> memoryview:
            if header.type in (SHT_NULL, SHT_NOBITS):
                return memoryview(b"")
            return memoryview(data)[header.offset : header.offset + header.size]

        sections = [
            Section(
                i, _name(names, h.name) or "", h.type, h.flags, h.addralign, h.size, h.link, h.info,
                h.entsize, view(h),
            )
            for i, h in enumerate(headers)
        ]  # fmt: skip

        def find(name: str) -> int:
            wanted = (s.index for s in sections[1:] if s.flags & SHF_ALLOC and s.name == name)
            return next(wanted, 0)

        info = find(".modinfo")
        if sections[info].size > limits.MODINFO:
            raise ElfError(errno.ENOMEM, f"Module has {sections[info].size} bytes of .modinfo")
        modinfo = Modinfo.parse(bytes(sections[info].data))
        info_name = modinfo.get("name")
        symtab = next((s.index for s in sections[1:] if s.type == SHT_SYMTAB), 0)
        shown_name = info_name or "(missing .modinfo section or name field)"
        if not symtab:
            refuse(f"{shown_name}: module has no symbols (stripped?)", level=KERN_WARNING)
        this_module = find(".gnu.linkonce.this_module")
        if not this_module:
            refuse(f"{shown_name}: No module found in object", level=KERN_WARNING)
        # kbuild writes the same name to both places. The loader uses the one of struct module.
        struct_name = bytes(sections[this_module].data[_MODULE_NAME]).split(b"\0", 1)[0]
        name = _decode(struct_name) or info_name or ""
        versions, percpu = find("__versions"), find(".data..percpu") if smp else 0
        for index in (info, versions, percpu):
            sections[index] = replace(sections[index], flags=sections[index].flags & ~SHF_ALLOC)
        for index in (find(".data..ro_after_init"), find("__jump_table")):
            if index:
                flags = sections[index].flags | SHF_RO_AFTER_INIT
                sections[index] = replace(sections[index], flags=flags)
        if sum(s.size for s in sections if s.type in (SHT_REL, SHT_RELA)) > len(data):
            refuse(f"{name}: relocation sections overlap")
        return cls(name, tuple(sections), modinfo, symtab, this_module, versions, percpu)

    def find(self, name: str) -> Section | None:
        """Return the first loaded section of that name, or None (``find_sec``)."""
        return next((s for s in self.sections[1:] if s.flags & SHF_ALLOC and s.name == name), None)

    def find_any(self, name: str) -> Section | None:
        """Return the first section of that name, loaded or not, or None (``find_any_sec``)."""
        return next((s for s in self.sections[1:] if s.name == name), None)

    @property
    def is_livepatch(self) -> bool:
        """True if the modinfo of the module marks it as a live patch."""
        return self.modinfo.get("livepatch") is not None

    @cached_property
    def symbols(self) -> tuple[ElfSymbol, ...]:
        """The symbol table; symbol 0 is empty. Raises ElfError."""
        table = self.sections[self.symtab]
        strings = bytes(self.sections[table.link].data)
        whole = len(table.data) // SYM.size * SYM.size
        if whole > limits.SYMBOLS * SYM.size:
            raise ElfError(errno.ENOMEM, f"{self.name}: too many symbols")
        symbols = []
        for i, (name_off, info, _, shndx, value, size) in enumerate(
            SYM.iter_unpack(table.data[:whole])
        ):
            name = _name(strings, name_off) if name_off else ""
            if name is None:
                refuse(f"{self.name}: Invalid ELF symbol name in module (symbol {i})")
            symbols.append(ElfSymbol(name, value, size, info >> 4, info & 15, shndx))
        return tuple(symbols)

    def kind(self, symbol: ElfSymbol) -> str:
        """Return the letter for a symbol in /proc/kallsyms (``elf_type``)."""
        if symbol.bind == STB_WEAK:
            return "v" if symbol.type == STT_OBJECT else "w"
        if symbol.shndx == SHN_UNDEF:
            return "U"
        if symbol.shndx == SHN_ABS or (symbol.shndx == self.percpu and self.percpu):
            return "a"
        if symbol.shndx >= len(self.sections):
            return "?"
        section = self.sections[symbol.shndx]
        if section.flags & SHF_EXECINSTR:
            return "t"
        if section.type == SHT_NOBITS:
            return "b"
        if section.flags & SHF_ALLOC:
            return "d" if section.flags & SHF_WRITE else "r"
        return "n" if section.name.startswith(".debug") else "?"

    def is_core(self, index: int) -> bool:
        """Return whether the kernel keeps a symbol after the module's init (``is_core_symbol``).

        It keeps the symbols of sections that stay loaded, and all symbols of a live patch.
        """
        if index == 0 or self.is_livepatch:
            return True
        symbol = self.symbols[index]
        if not symbol.name or symbol.shndx == SHN_UNDEF or symbol.shndx >= len(self.sections):
            return False
        section = self.sections[symbol.shndx]
        if symbol.shndx == self.percpu:
            return True
        return bool(section.flags & SHF_ALLOC) and not section.is_init

    def relocation_sections(self) -> Iterator[Section]:
        """Yield the sections that ``apply_relocations`` applies, in the order of the file.

        ``info`` of each is the index of its target. Those with SHF_RELA_LIVEPATCH in ``flags`` are
        applied later, by livepatch. Raise ElfError at a section of type SHT_REL.
        """
        for section in self.sections[1:]:
            if section.info >= len(self.sections):
                continue
            if not self.sections[section.info].flags & SHF_ALLOC:
                continue
            if section.flags & SHF_RELA_LIVEPATCH or section.type == SHT_RELA:
                yield section
            elif section.type == SHT_REL:
                refuse(f"module {self.name}: REL relocation unsupported")

    def relocations(self, section: Section) -> Iterator[Relocation]:
        """Yield the entries of a relocation section."""
        whole = len(section.data) // RELA.size * RELA.size
        for offset, info, addend in RELA.iter_unpack(section.data[:whole]):
            yield Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _name(table: bytes, offset: int) -> str | None:
    """Return a string of a string table, or None if it is too long or has no end."""
    end = table.find(b"\0", offset, offset + _KSYM_NAME_LEN)
    return _decode(table[offset:end]) if end >= 0 else None
