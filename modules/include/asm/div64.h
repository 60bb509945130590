/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_DIV64_H
#define _ASM_DIV64_H

#include <linux/types.h>

/* Divide n in place. The value of the macro is the remainder. */
#define do_div(n, base)                         \
	({                                      \
		u32 __base = (base);            \
		u32 __rem = (u64)(n) % __base;  \
		(n) = (u64)(n) / __base;        \
		__rem;                          \
	})

#endif
