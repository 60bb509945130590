# SPDX-License-Identifier: GPL-2.0-or-later
"""A linked kernel: the sections of its ELF file, and their content by address."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from klpfs.machine.elf.format import (
    EHDR,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    MAGIC,
    NOTE,
    NT_GNU_BUILD_ID,
    PF_W,
    PF_X,
    PHDR,
    PT_LOAD,
    SHDR,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_ABS,
    SHT_NOBITS,
    SHT_SYMTAB,
    STT_FILE,
    STT_SECTION,
    SYM,
)
from klpfs.machine.image import ImageError, Segment, Symbol

_SECTIONS_MAX = 4096
_LOADED_MAX = 512 << 20
_U64 = (1 << 64) - 1

_IDENT = struct.Struct(
    "<4xBB10xHH"
)  # EI_CLASS EI_DATA e_type e_machine, the same in every ELF file
_MACHINES = {
    2: "sparc", 3: "32-bit x86", 8: "mips", 20: "powerpc", 21: "powerpc64", 22: "s390", 40: "arm",
    43: "sparc64", 183: "arm64", 243: "riscv", 258: "loongarch",
}  # fmt: skip


class Section(NamedTuple):
    """A loaded section of ``size`` bytes at ``addr``. ``data`` is empty for SHT_NOBITS."""

    name: str
    addr: int
    size: int
    writable: bool
    executable: bool
    data: bytes

    @property
    def end(self) -> int:
        """The address behind the section."""
        return self.addr + self.size


class Vmlinux:
    """The content of a vmlinux. ``sections`` are those that are loaded, in the order of addresses.

    Empty sections are left out. Raise ImageError if the file is not an x86-64 vmlinux, or OSError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file_size = file.seek(0, 2)
        phoff, phnum, shoff, shentsize, shnum, shstrndx = self._header()
        self._program_headers = phoff, phnum
        if not shnum or shentsize != SHDR.size or shstrndx >= shnum:
            raise ImageError("it has no section table")
        if shnum > _SECTIONS_MAX:
            raise ImageError(f"it has {shnum} sections, more than any kernel has")
        self._headers = headers = list(SHDR.iter_unpack(self._read(shoff, shnum * SHDR.size)))
        self._names = self._read(*headers[shstrndx][4:6])
        self.sections = sorted(self._loaded(), key=lambda section: section.addr)
        self._starts = [section.addr for section in self.sections]
        self._by_name = {section.name: section for section in self.sections}

    def _read(self, offset: int, size: int) -> bytes:
        """Return a part of the file. Raise ImageError."""
        if offset + size > self._file_size:
            raise ImageError(
                f"it is truncated: it should have at least {offset + size} bytes, "
                f"and it has {self._file_size}"
            )
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise ImageError("it changed while it was read")
        return data

    def _header(self) -> tuple[int, int, int, int, int, int]:
        """Return phoff, phnum, shoff, shentsize, shnum and shstrndx. Raise ImageError."""
        if self._read(0, min(len(MAGIC), self._file_size)) != MAGIC:
            raise ImageError("its content is not an ELF file")
        elf_class, order, kind, machine = _IDENT.unpack(self._read(0, _IDENT.size))
        if machine != EM_X86_64 or elf_class != ELFCLASS64 or order != ELFDATA2LSB:
            name = _MACHINES.get(machine, f"machine {machine}")
            raise ImageError(f"it is for {name}, not for x86-64")
        if kind not in (ET_EXEC, ET_DYN):
            raise ImageError("it is an ELF file, but not an executable")
        _, _, _, _, _, phoff, shoff, _, _, _, phnum, *sections = EHDR.unpack(
            self._read(0, EHDR.size)
        )
        return phoff, phnum, shoff, *sections

    def _loaded(self) -> Iterator[Section]:
        total = 0
        for name_at, kind, flags, addr, offset, size, _, _, _, _ in self._headers:
            if not flags & SHF_ALLOC or not size:
                continue
            total += size
            if total > _LOADED_MAX or addr + size > _U64 + 1:
                raise ImageError("its sections are larger than a kernel can be")
            yield Section(
                self._name(name_at),
                addr,
                size,
                bool(flags & SHF_WRITE),
                bool(flags & SHF_EXECINSTR),
                b"" if kind == SHT_NOBITS else self._read(offset, size),
            )

    def section(self, name: str) -> Section | None:
        """Return a loaded section by its name, or None."""
        return self._by_name.get(name)

    def data(self, name: str) -> bytes:
        """Return the content of a section, loaded or not. Raise ImageError if there is none."""
        for header in self._headers:
            if self._name(header[0]) == name:
                return self._read(*header[4:6])
        raise ImageError(f"it has no section {name}")

    def _name(self, at: int) -> str:
        return _string(self._names, at).decode("utf-8", "replace")

    def segments(self) -> list[Segment]:
        """Return the segments to load, as in the program headers. Raise ImageError."""
        phoff, count = self._program_headers
        return [
            Segment(vaddr, self._read(offset, filesz), memsz, bool(f & PF_W), bool(f & PF_X))
            for kind, f, offset, vaddr, _, filesz, memsz, _ in PHDR.iter_unpack(
                self._read(phoff, count * PHDR.size)
            )
            if kind == PT_LOAD
        ]

    def symbol_table(self) -> Iterator[Symbol]:
        """Yield the symbols in the order of the file, with the letters of nm(1) as kinds.

        A stripped kernel has none. Raise ImageError.
        """
        letters = [_letter(*header[1:3]) for header in self._headers]
        for _, kind, _, _, offset, size, link, _, _, _ in self._headers:
            if kind != SHT_SYMTAB:
                continue
            if link >= len(self._headers) or size % SYM.size:
                raise ImageError("its symbol table is damaged")
            names = self._read(*self._headers[link][4:6])
            for name_at, info, _, index, value, length in SYM.iter_unpack(self._read(offset, size)):
                if not index or info & 15 in (STT_SECTION, STT_FILE):
                    continue
                letter = letters[index] if index < len(letters) else "a" if index == SHN_ABS else ""
                name = _string(names, name_at).decode("utf-8", "surrogateescape")
                if letter and name:
                    yield Symbol(name, value, length, letter.upper() if info >> 4 else letter)

    def read(self, address: int, size: int) -> bytes:
        """Return at most ``size`` bytes at ``address``, up to the end of the section.

        Raise ImageError for an address outside of all loaded sections.
        """
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            section = self.sections[at]
            start = address - section.addr
            if start < section.size:
                return section.data[start : start + size] or bytes(min(size, section.size - start))
        raise ImageError(f"it refers to address {address:#x}, which is in none of its sections")

    def read_range(self, start: int, end: int) -> bytes:
        """Return the bytes in ``[start, end)``. Raise ImageError if they are not in one section."""
        if start == end:
            return b""
        data = self.read(start, max(end - start, 0))
        if len(data) != end - start:
            raise ImageError(f"its table from {start:#x} to {end:#x} does not end in the section")
        return data

    def text(self, address: int, limit: int = 4096) -> str:
        """Return the NUL-terminated string at ``address``. Raise ImageError."""
        return self.read(address, limit).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def build_id(self) -> str:
        """Return the GNU build id in hexadecimal, empty if there is none."""
        section = self.section(".notes")
        data, at = section.data if section else b"", 0
        while at + NOTE.size <= len(data):
            name_size, size, kind = NOTE.unpack_from(data, at)
            name_at = at + NOTE.size
            at = name_at + (name_size + 3 & -4)
            if kind == NT_GNU_BUILD_ID and data[name_at : name_at + name_size] == b"GNU\0":
                return data[at : at + size].hex()
            at += size + 3 & -4
        return ""


def _string(table: bytes, at: int) -> bytes:
    """Return the string at an offset of a string table, empty behind its end."""
    end = table.find(b"\0", at)
    return table[at : end if end >= 0 else None]


def _letter(kind: int, flags: int) -> str:
    """Return the letter of the local symbols in a section, empty if it is not loaded."""
    if not flags & SHF_ALLOC:
        return ""
    if flags & SHF_EXECINSTR:
        return "t"
    if not flags & SHF_WRITE:
        return "r"
    return "b" if kind == SHT_NOBITS else "d"
