# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks of a module's ELF headers: ``elf_validity_check``, kernel/module/main.c."""

from __future__ import annotations

from typing import NamedTuple

from klpfs.machine.elf.errors import refuse
from klpfs.machine.elf.format import (
    EHDR,
    EM_X86_64,
    ET_REL,
    MAGIC,
    SHDR,
    SHF_ALLOC,
    SHN_UNDEF,
    SHT_NOBITS,
    SHT_NULL,
    SHT_SYMTAB,
)


class SectionHeader(NamedTuple):
    """``Elf64_Shdr``"""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


def elf_validity_check(data: bytes) -> tuple[list[SectionHeader], bytes]:
    """Return the section headers and the section name table of a module. Raise ElfError."""
    length = len(data)
    if length < EHDR.size:
        refuse(f"Invalid ELF header len {length}")
    magic, e_type, machine, _, _, _, shoff, _, _, _, _, shentsize, shnum, shstrndx = (
        EHDR.unpack_from(data)
    )
    if magic != MAGIC:
        refuse("Invalid ELF header magic: != \x7fELF")
    if e_type != ET_REL:
        refuse(f"Invalid ELF header type: {e_type} != {ET_REL}")
    if machine != EM_X86_64:
        refuse(f"Invalid architecture in ELF header: {machine}")
    if shentsize != SHDR.size:
        refuse("Invalid ELF section header size")
    if shoff >= length or shnum * SHDR.size > length - shoff:
        refuse("Invalid ELF section header overflow")
    if shstrndx == SHN_UNDEF or shstrndx >= shnum:
        refuse(
            f"Invalid ELF section name index: {shstrndx} || e_shstrndx ({shstrndx}) >= "
            f"e_shnum ({shnum})"
        )
    table = memoryview(data)[shoff : shoff + shnum * SHDR.size]
    headers = [SectionHeader(*fields) for fields in SHDR.iter_unpack(table)]
    names = _section_names(data, headers[shstrndx])
    first = headers[0]
    if first.type != SHT_NULL or first.size or first.addr:
        refuse(
            f"ELF Spec violation: section 0 type({_int(first.type)})!=SH_NULL or non-zero len or "
            "addr"
        )
    for i, header in enumerate(headers[1:], 1):
        if header.type in (SHT_NULL, SHT_NOBITS):
            continue
        if header.type == SHT_SYMTAB and (header.link == SHN_UNDEF or header.link >= shnum):
            link = _int(header.link)
            refuse(
                f"Invalid ELF sh_link!=SHN_UNDEF({link}) or (sh_link({link}) >= "
                f"hdr->e_shnum({shnum})"
            )
        if not _is_within(header, length):
            refuse(f"Invalid ELF section in module (section {i} type {header.type})")
        if header.flags & SHF_ALLOC and header.name >= len(names):
            refuse(f"Invalid ELF section name in module (section {i} type {header.type})")
    return headers, names


def _section_names(data: bytes, header: SectionHeader) -> bytes:
    if not _is_within(header, len(data)):
        refuse(f"Invalid ELF section hdr(type {header.type})")
    if not header.size:
        refuse("empty section name table")
    names = data[header.offset : header.offset + header.size]
    if names[-1]:
        refuse("ELF Spec violation: section name table isn't null terminated")
    return names


def _is_within(header: SectionHeader, length: int) -> bool:
    return header.offset + header.size <= length


def _int(value: int) -> int:
    """Return a 32-bit number as ``%d`` prints it."""
    return value - (1 << 32) if value >> 31 else value
