/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_UNALIGNED_H
#define _ASM_UNALIGNED_H

#include <linux/types.h>
#include <asm/byteorder.h>

#define __unaligned(type) struct { type x; } __packed
#define get_unaligned(ptr) (((const __unaligned(typeof(*(ptr))) *)(ptr))->x)
#define put_unaligned(val, ptr)                                                  \
	do {                                                                     \
		((__unaligned(typeof(*(ptr))) *)(ptr))->x = (val);               \
	} while (0)

#endif
