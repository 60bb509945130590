/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_BUG_H
#define _ASM_BUG_H

#include <linux/stringify.h>

#define ASM_UD2 ".byte 0x0f, 0x0b"
#define INSN_UD2 0x0b0f
#define LEN_UD2 2

/* An entry of __bug_table for an instruction. Its pointers are relative to their own addresses. */
#define _BUG_FLAGS_AT(file, line, ins, flags)                                                    \
	do {                                                                      \
		asm_inline volatile("1:	" ins "\n"                                 \
				    "	.pushsection __bug_table, \"aw\"\n"        \
				    "2:	.long 1b - .\n"                            \
				    "	.long %c0 - .\n"                           \
				    "	.word %c1\n"                               \
				    "	.word %c2\n"                               \
				    "	.org 2b + %c3\n"                           \
				    "	.popsection"                               \
				    :                                             \
				    : "i"(file), "i"(line), "i"(flags),   \
				      "i"(sizeof(struct bug_entry)));             \
	} while (0)

#define _BUG_FLAGS(ins, flags) _BUG_FLAGS_AT(__FILE__, __LINE__, ins, flags)

#define BUG()                            \
	do {                             \
		_BUG_FLAGS(ASM_UD2, 0);  \
		__builtin_unreachable(); \
	} while (0)

#define __WARN_FLAGS(flags) _BUG_FLAGS(ASM_UD2, BUGFLAG_WARNING | (flags))

#endif
