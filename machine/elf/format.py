# SPDX-License-Identifier: GPL-2.0-or-later
"""The structs and constants of 64-bit little-endian ELF files: include/uapi/linux/elf.h."""

from __future__ import annotations

import struct

MAGIC = b"\x7fELF"
EHDR = struct.Struct("<4s12xHHIQQQIHHHHHH")
"""``Elf64_Ehdr``, without the bytes of ``e_ident`` that are behind the magic number."""
PHDR = struct.Struct("<IIQQQQQQ")
"""``Elf64_Phdr``"""
SHDR = struct.Struct("<IIQQQQIIQQ")
"""``Elf64_Shdr``"""
SYM = struct.Struct("<IBBHQQ")
"""``Elf64_Sym``"""
RELA = struct.Struct("<QQq")
"""``Elf64_Rela``"""
NOTE = struct.Struct("<III")
"""``Elf64_Nhdr``"""

ELFCLASS64, ELFDATA2LSB = 2, 1
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_X86_64 = 62

PT_LOAD, PF_X, PF_W = 1, 1, 2

SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOTE, SHT_NOBITS, SHT_REL = 7, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHF_RELA_LIVEPATCH, SHF_RO_AFTER_INIT = 0x00100000, 0x00200000
SHN_UNDEF, SHN_LORESERVE, SHN_LIVEPATCH, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFF20, 0xFFF1, 0xFFF2

STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = range(5)

R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32 = 0, 1, 2, 4
R_X86_64_32, R_X86_64_32S, R_X86_64_PC64 = 10, 11, 24

NT_GNU_BUILD_ID = 3
