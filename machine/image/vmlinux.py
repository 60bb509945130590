# SPDX-License-Identifier: GPL-2.0-or-later
"""A linked kernel: its ELF sections, and what they hold at which address."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from klpfs.machine.image import ImageError, Segment, Symbol

_SECTIONS_MAX = 4096
_LOADED_MAX = 512 << 20
_U64 = (1 << 64) - 1

_MAGIC = b"\x7fELF"
_IDENT = struct.Struct("<4xBB10xHH")
_EHDR = struct.Struct("<32xQQ6xHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_PHDR = struct.Struct("<IIQQQQQQ")
_SYM = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_CLASS64, _LITTLE_ENDIAN = 2, 1
_ET_EXEC, _ET_DYN = 2, 3
_EM_X86_64 = 62
_MACHINES = {
    2: "sparc", 3: "32-bit x86", 8: "mips", 20: "powerpc", 21: "powerpc64", 22: "s390", 40: "arm",
    43: "sparc64", 183: "arm64", 243: "riscv", 258: "loongarch",
}  # fmt: skip
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_SHT_SYMTAB, _SHT_NOBITS = 2, 8
_PT_LOAD, _PF_X, _PF_W = 1, 1, 2
_SHN_ABS = 0xFFF1
_STT_SECTION, _STT_FILE = 3, 4
_NT_GNU_BUILD_ID = 3


class Section(NamedTuple):
    """A section that is loaded, at ``addr``. ``data`` is empty for what starts as zeroes, else it has
    ``size`` bytes."""

    name: str
    addr: int
    size: int
    writable: bool
    executable: bool
    data: bytes

    @property
    def end(self) -> int:
        return self.addr + self.size


class Vmlinux:
    """What a vmlinux loads: ``sections`` in the order of their addresses, empty ones left out.

    Raises ImageError for a file that is no x86-64 vmlinux, and OSError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file_size = file.seek(0, 2)
        phoff, phnum, shoff, shentsize, shnum, shstrndx = self._header()
        self._program_headers = phoff, phnum
        if not shnum or shentsize != _SHDR.size or shstrndx >= shnum:
            raise ImageError("it has no section table")
        if shnum > _SECTIONS_MAX:
            raise ImageError(f"it has {shnum} sections, which no kernel has")
        self._headers = headers = list(_SHDR.iter_unpack(self._at(shoff, shnum * _SHDR.size)))
        self._names = self._at(*headers[shstrndx][4:6])
        self.sections = sorted(self._loaded(), key=lambda section: section.addr)
        self._starts = [section.addr for section in self.sections]
        self._by_name = {section.name: section for section in self.sections}

    def _at(self, offset: int, size: int) -> bytes:
        """A part of the file."""
        if offset + size > self._file_size:
            raise ImageError(
                f"it is cut off: it should have {offset + size} bytes or more, "
                f"and it has {self._file_size}"
            )
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise ImageError("it changes while it is read")
        return data

    def _header(self) -> tuple[int, int, int, int, int, int]:
        """Where the program headers are, and their number; where the section headers are, the size of one,
        their number, and the one of the names."""
        if self._at(0, min(len(_MAGIC), self._file_size)) != _MAGIC:
            raise ImageError("what is packed in it is no vmlinux")
        elf_class, order, kind, machine = _IDENT.unpack(self._at(0, _IDENT.size))
        if machine != _EM_X86_64 or elf_class != _CLASS64 or order != _LITTLE_ENDIAN:
            name = _MACHINES.get(machine, f"machine {machine}")
            raise ImageError(f"it is for {name}, not for x86-64")
        if kind not in (_ET_EXEC, _ET_DYN):
            raise ImageError("it is an ELF file of another kind than a kernel")
        phoff, shoff, _, phnum, *sections = _EHDR.unpack(self._at(0, _EHDR.size))
        return phoff, phnum, shoff, *sections

    def _loaded(self) -> Iterator[Section]:
        total = 0
        for name_at, kind, flags, addr, offset, size, _, _, _, _ in self._headers:
            if not flags & _SHF_ALLOC or not size:
                continue
            total += size
            if total > _LOADED_MAX or addr + size > _U64 + 1:
                raise ImageError("its sections are larger than a kernel can be")
            yield Section(
                self._name(name_at),
                addr,
                size,
                bool(flags & _SHF_WRITE),
                bool(flags & _SHF_EXECINSTR),
                b"" if kind == _SHT_NOBITS else self._at(offset, size),
            )

    def section(self, name: str) -> Section | None:
        """A section by its name."""
        return self._by_name.get(name)

    def data(self, name: str) -> bytes:
        """The content of a section, also of one that is not loaded. Raises ImageError if there is none."""
        for header in self._headers:
            if self._name(header[0]) == name:
                return self._at(*header[4:6])
        raise ImageError(f"it has no section {name}")

    def _name(self, at: int) -> str:
        return _string(self._names, at).decode("utf-8", "replace")

    def segments(self) -> list[Segment]:
        """What its program headers say is to be loaded. Raises ImageError."""
        phoff, count = self._program_headers
        return [
            Segment(vaddr, self._at(offset, filesz), memsz, bool(f & _PF_W), bool(f & _PF_X))
            for kind, f, offset, vaddr, _, filesz, memsz, _ in _PHDR.iter_unpack(
                self._at(phoff, count * _PHDR.size)
            )
            if kind == _PT_LOAD
        ]

    def symbol_table(self) -> Iterator[Symbol]:
        """Its symbols as nm has them, in their order; none of a kernel that was stripped. Raises
        ImageError."""
        letters = [_letter(*header[1:3]) for header in self._headers]
        for _, kind, _, _, offset, size, link, _, _, _ in self._headers:
            if kind != _SHT_SYMTAB:
                continue
            if link >= len(self._headers) or size % _SYM.size:
                raise ImageError("its symbol table is damaged")
            names = self._at(*self._headers[link][4:6])
            for name_at, info, _, index, value, length in _SYM.iter_unpack(self._at(offset, size)):
                if not index or info & 15 in (_STT_SECTION, _STT_FILE):
                    continue
                letter = (
                    letters[index] if index < len(letters) else "a" if index == _SHN_ABS else ""
                )
                name = _string(names, name_at).decode("utf-8", "surrogateescape")
                if letter and name:
                    yield Symbol(name, value, length, letter.upper() if info >> 4 else letter)

    def read(self, address: int, size: int) -> bytes:
        """At most ``size`` bytes of what is loaded at ``address``; they end where its section ends.

        Raises ImageError where nothing is.
        """
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            section = self.sections[at]
            start = address - section.addr
            if start < section.size:
                return section.data[start : start + size] or bytes(min(size, section.size - start))
        raise ImageError(f"it refers to address {address:#x}, where it has nothing")

    def range(self, start: int, end: int) -> bytes:
        """All of ``[start, end)``. Raises ImageError if that is not inside of one section."""
        if start == end:
            return b""
        data = self.read(start, max(end - start, 0))
        if len(data) != end - start:
            raise ImageError(f"its table at {start:#x} to {end:#x} goes over a section's end")
        return data

    def text(self, address: int, limit: int = 4096) -> str:
        """The string at ``address``. Raises ImageError."""
        return self.read(address, limit).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def build_id(self) -> str:
        """The GNU build id in hexadecimal; empty if it has none."""
        section = self.section(".notes")
        data, at = section.data if section else b"", 0
        while at + _NOTE.size <= len(data):
            name_size, size, kind = _NOTE.unpack_from(data, at)
            name_at = at + _NOTE.size
            at = name_at + (name_size + 3 & -4)
            if kind == _NT_GNU_BUILD_ID and data[name_at : name_at + name_size] == b"GNU\0":
                return data[at : at + size].hex()
            at += size + 3 & -4
        return ""


def _string(table: bytes, at: int) -> bytes:
    """What a string table has at an offset; nothing behind its end."""
    end = table.find(b"\0", at)
    return table[at : end if end >= 0 else None]


def _letter(kind: int, flags: int) -> str:
    """The letter of the symbols in a section; none if they have no address."""
    if not flags & _SHF_ALLOC:
        return ""
    if flags & _SHF_EXECINSTR:
        return "t"
    if not flags & _SHF_WRITE:
        return "r"
    return "b" if kind == _SHT_NOBITS else "d"
