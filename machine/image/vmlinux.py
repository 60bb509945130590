# SPDX-License-Identifier: GPL-2.0-or-later
"""A linked kernel: its ELF sections, and what they hold at which address."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from machine.image import ImageError

_SECTIONS_MAX = 4096
_LOADED_MAX = 512 << 20
_U64 = (1 << 64) - 1

_MAGIC = b"\x7fELF"
_IDENT = struct.Struct("<4xBB10xHH")
_EHDR = struct.Struct("<32xQQ6xHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
_CLASS64, _LITTLE_ENDIAN = 2, 1
_ET_EXEC, _ET_DYN = 2, 3
_EM_X86_64 = 62
_MACHINES = {
    2: "sparc", 3: "32-bit x86", 8: "mips", 20: "powerpc", 21: "powerpc64", 22: "s390", 40: "arm",
    43: "sparc64", 183: "arm64", 243: "riscv", 258: "loongarch",
}  # fmt: skip
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_SHT_NOBITS = 8
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
        shoff, shentsize, shnum, shstrndx = self._header()
        if not shnum or shentsize != _SHDR.size or shstrndx >= shnum:
            raise ImageError("it has no section table")
        if shnum > _SECTIONS_MAX:
            raise ImageError(f"it has {shnum} sections, which no kernel has")
        headers = list(_SHDR.iter_unpack(self._at(shoff, shnum * _SHDR.size)))
        names = self._at(*headers[shstrndx][4:6])
        self.sections = sorted(self._loaded(headers, names), key=lambda section: section.addr)
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

    def _header(self) -> tuple[int, int, int, int]:
        """Where the section headers are, the size of one, their number, and the one of the names."""
        if self._at(0, min(len(_MAGIC), self._file_size)) != _MAGIC:
            raise ImageError("what is packed in it is no vmlinux")
        elf_class, order, kind, machine = _IDENT.unpack(self._at(0, _IDENT.size))
        if machine != _EM_X86_64 or elf_class != _CLASS64 or order != _LITTLE_ENDIAN:
            name = _MACHINES.get(machine, f"machine {machine}")
            raise ImageError(f"it is for {name}, not for x86-64")
        if kind not in (_ET_EXEC, _ET_DYN):
            raise ImageError("it is an ELF file of another kind than a kernel")
        _, shoff, _, _, *sections = _EHDR.unpack(self._at(0, _EHDR.size))
        return shoff, *sections

    def _loaded(self, headers: list[tuple[int, ...]], names: bytes) -> Iterator[Section]:
        total = 0
        for name_at, kind, flags, addr, offset, size, _, _, _, _ in headers:
            if not flags & _SHF_ALLOC or not size:
                continue
            total += size
            if total > _LOADED_MAX or addr + size > _U64 + 1:
                raise ImageError("its sections are larger than a kernel can be")
            yield Section(
                names[name_at:].split(b"\0", 1)[0].decode("utf-8", "replace"),
                addr,
                size,
                bool(flags & _SHF_WRITE),
                bool(flags & _SHF_EXECINSTR),
                b"" if kind == _SHT_NOBITS else self._at(offset, size),
            )

    def section(self, name: str) -> Section | None:
        """A section by its name."""
        return self._by_name.get(name)

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
