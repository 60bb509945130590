/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_CMPXCHG_H
#define _ASM_CMPXCHG_H

#include <linux/compiler.h>

#define xchg(ptr, v) __atomic_exchange_n(ptr, v, __ATOMIC_SEQ_CST)
/* The value of the macro is the previous *ptr. */
#define cmpxchg(ptr, old, new)                                                       \
	({                                                                           \
		typeof(*(ptr)) __cmpxchg_old = (old);                                \
		__atomic_compare_exchange_n(ptr, &__cmpxchg_old, new, false,         \
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
		__cmpxchg_old;                                                       \
	})
#define try_cmpxchg(ptr, oldp, new)                                          \
	__atomic_compare_exchange_n(ptr, oldp, new, false, __ATOMIC_SEQ_CST, \
				    __ATOMIC_SEQ_CST)
#define cmpxchg64 cmpxchg
#define cmpxchg_relaxed cmpxchg
#define cmpxchg_acquire cmpxchg
#define cmpxchg_release cmpxchg
#define xchg_relaxed xchg

#endif
