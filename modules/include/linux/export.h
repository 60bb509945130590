/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_EXPORT_H
#define _LINUX_EXPORT_H

#include <linux/compiler.h>
#include <linux/stringify.h>

#ifndef __ASSEMBLY__

#ifdef MODULE
extern struct module __this_module;
#define THIS_MODULE (&__this_module)
#else
#define THIS_MODULE ((struct module *)0)
#endif

/* Each member is relative to its own address. */
struct kernel_symbol {
	int value_offset;
	int name_offset;
	int namespace_offset;
};

/*
 * Each entry is in its own section, named after the symbol. The linker sorts these sections, so
 * that a binary search of the table is possible.
 */
#define ___EXPORT_SYMBOL(sym, sec, ns)                                          \
	extern typeof(sym) sym;                                                 \
	__ADDRESSABLE(sym)                                                      \
	asm("	.pushsection \"__ksymtab_strings\", \"aMS\", %progbits, 1\n"     \
	    "__kstrtab_" #sym ": .asciz \"" #sym "\"\n"                         \
	    "__kstrtabns_" #sym ": .asciz \"" ns "\"\n"                         \
	    "	.popsection\n"                                                   \
	    "	.pushsection \"___ksymtab" sec "+" #sym "\", \"a\"\n"            \
	    "	.balign 4\n"                                                     \
	    "__ksymtab_" #sym ":\n"                                             \
	    "	.long " #sym " - ., __kstrtab_" #sym " - ., __kstrtabns_" #sym " - .\n" \
	    "	.popsection")

#define EXPORT_SYMBOL(sym) ___EXPORT_SYMBOL(sym, "", "")
#define EXPORT_SYMBOL_GPL(sym) ___EXPORT_SYMBOL(sym, "_gpl", "")
#define EXPORT_SYMBOL_NS(sym, ns) ___EXPORT_SYMBOL(sym, "", __stringify(ns))
#define EXPORT_SYMBOL_NS_GPL(sym, ns) ___EXPORT_SYMBOL(sym, "_gpl", __stringify(ns))

#endif

#endif
