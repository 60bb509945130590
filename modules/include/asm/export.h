/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_EXPORT_H
#define _ASM_EXPORT_H

/* EXPORT_SYMBOL() for assembly. */

.macro ___EXPORT_SYMBOL name, sec
	.pushsection __ksymtab_strings, "aMS", %progbits, 1
__kstrtab_\name: .asciz "\name"
__kstrtabns_\name: .asciz ""
	.popsection
	.pushsection ___ksymtab\sec+\name, "a"
	.balign 4
__ksymtab_\name:
	.long \name - ., __kstrtab_\name - ., __kstrtabns_\name - .
	.popsection
.endm

#define EXPORT_SYMBOL(name) ___EXPORT_SYMBOL name,
#define EXPORT_SYMBOL_GPL(name) ___EXPORT_SYMBOL name, _gpl

#endif
