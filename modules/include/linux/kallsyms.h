/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_KALLSYMS_H
#define _LINUX_KALLSYMS_H

#include <linux/types.h>

struct module;

#define KSYM_NAME_LEN 512
/* A name, "+0x.../0x..." with two 64-bit numbers, and " [module]". */
#define KSYM_SYMBOL_LEN \
	(sizeof("%s+%#lx/%#lx [%s %s]") + (KSYM_NAME_LEN - 1) + 2 * (64 * 3 / 10) + 56 + 1)

extern unsigned long kallsyms_lookup_name(const char *name);
extern int kallsyms_on_each_symbol(int (*fn)(void *data, const char *name, struct module *mod,
					     unsigned long addr), void *data);
extern int kallsyms_lookup_size_offset(unsigned long addr, unsigned long *symbolsize,
				       unsigned long *offset);
extern const char *kallsyms_lookup(unsigned long addr, unsigned long *symbolsize,
				   unsigned long *offset, char **modname, char *namebuf);
extern int lookup_symbol_name(unsigned long addr, char *symname);
extern int sprint_symbol(char *buffer, unsigned long address);
extern int sprint_symbol_no_offset(char *buffer, unsigned long address);
extern int sprint_symbol_build_id(char *buffer, unsigned long address);
extern int sprint_backtrace(char *buffer, unsigned long address);
extern int sprint_backtrace_build_id(char *buffer, unsigned long address);

#endif
