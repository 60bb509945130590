/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_ELF_H
#define _LINUX_ELF_H

#include <linux/types.h>

#define EI_NIDENT 16

typedef struct elf64_hdr {
	unsigned char e_ident[EI_NIDENT];
	__u16 e_type;
	__u16 e_machine;
	__u32 e_version;
	__u64 e_entry;
	__u64 e_phoff;
	__u64 e_shoff;
	__u32 e_flags;
	__u16 e_ehsize;
	__u16 e_phentsize;
	__u16 e_phnum;
	__u16 e_shentsize;
	__u16 e_shnum;
	__u16 e_shstrndx;
} Elf64_Ehdr;

typedef struct elf64_shdr {
	__u32 sh_name;
	__u32 sh_type;
	__u64 sh_flags;
	__u64 sh_addr;
	__u64 sh_offset;
	__u64 sh_size;
	__u32 sh_link;
	__u32 sh_info;
	__u64 sh_addralign;
	__u64 sh_entsize;
} Elf64_Shdr;

typedef struct elf64_sym {
	__u32 st_name;
	unsigned char st_info;
	unsigned char st_other;
	__u16 st_shndx;
	__u64 st_value;
	__u64 st_size;
} Elf64_Sym;

typedef struct elf64_rela {
	__u64 r_offset;
	__u64 r_info;
	__s64 r_addend;
} Elf64_Rela;

#define Elf_Ehdr Elf64_Ehdr
#define Elf_Shdr Elf64_Shdr
#define Elf_Sym Elf64_Sym
#define Elf_Rela Elf64_Rela

#endif
