/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_COMPILER_H
#define _LINUX_COMPILER_H

#include <linux/compiler_types.h>

#ifndef __ASSEMBLY__

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier() asm volatile("" : : : "memory")
#define barrier_data(ptr) asm volatile("" : : "r"(ptr) : "memory")
#define unreachable() __builtin_unreachable()
#define OPTIMIZER_HIDE_VAR(var) asm("" : "=r"(var) : "0"(var))
#define RELOC_HIDE(ptr, off)                          \
	({                                            \
		unsigned long __ptr;                  \
		asm("" : "=r"(__ptr) : "0"(ptr));     \
		(typeof(ptr))(__ptr + (off));         \
	})
#define absolute_pointer(val) RELOC_HIDE((void *)(val), 0)
#define data_race(expr) (expr)

#define __UNIQUE_ID(prefix) __PASTE(__PASTE(__UNIQUE_ID_, prefix), __COUNTER__)

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define __READ_ONCE(x) READ_ONCE(x)
#define READ_ONCE_NOCHECK(x) READ_ONCE(x)
#define WRITE_ONCE(x, val)                              \
	do {                                            \
		*(volatile typeof(x) *)&(x) = (val);    \
	} while (0)

/* Keep a symbol that only the linker refers to. */
#define ___ADDRESSABLE(sym, __attrs) \
	static void *__used __attrs __UNIQUE_ID(__PASTE(__addressable_, sym)) = (void *)&sym;
#define __ADDRESSABLE(sym) ___ADDRESSABLE(sym, __section(".discard.addressable"))

#define __must_be_array(a) BUILD_BUG_ON_ZERO(__same_type((a), &(a)[0]))
#define is_signed_type(type) (((type)(-1)) < (__force type)1)

/* Convert a relative pointer, as in __ksymtab, to an address. */
static inline void *offset_to_ptr(const int *off)
{
	return (void *)((unsigned long)off + *off);
}

#endif

#endif
