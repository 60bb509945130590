/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_DIV64_H
#define _ASM_DIV64_H

#include <linux/types.h>

/* Divides n in place; the value is the remainder. */
#define do_div(n, base)                         \
	({                                      \
		u32 __base = (base);            \
		u32 __rem = (u64)(n) % __base;  \
		(n) = (u64)(n) / __base;        \
		__rem;                          \
	})

#endif
