/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_ATOMIC_H
#define _LINUX_ATOMIC_H

#include <linux/types.h>
#include <asm/barrier.h>
#include <asm/cmpxchg.h>

#define ATOMIC_INIT(i) { (i) }
#define ATOMIC64_INIT(i) { (i) }
#define ATOMIC_LONG_INIT(i) { (i) }

typedef atomic64_t atomic_long_t;

/* On x86 each is a full barrier, so _relaxed, _acquire and _release forms would be the same. */
#define __ATOMIC_OPS(prefix, type, ctype)                                                      \
	static __always_inline ctype prefix##_read(const type *v)                              \
	{                                                                                      \
		return READ_ONCE(v->counter);                                                  \
	}                                                                                      \
	static __always_inline void prefix##_set(type *v, ctype i)                             \
	{                                                                                      \
		WRITE_ONCE(v->counter, i);                                                     \
	}                                                                                      \
	static __always_inline void prefix##_add(ctype i, type *v)                             \
	{                                                                                      \
		__atomic_fetch_add(&v->counter, i, __ATOMIC_SEQ_CST);                          \
	}                                                                                      \
	static __always_inline void prefix##_sub(ctype i, type *v)                             \
	{                                                                                      \
		__atomic_fetch_sub(&v->counter, i, __ATOMIC_SEQ_CST);                          \
	}                                                                                      \
	static __always_inline void prefix##_or(ctype i, type *v)                              \
	{                                                                                      \
		__atomic_fetch_or(&v->counter, i, __ATOMIC_SEQ_CST);                           \
	}                                                                                      \
	static __always_inline void prefix##_and(ctype i, type *v)                             \
	{                                                                                      \
		__atomic_fetch_and(&v->counter, i, __ATOMIC_SEQ_CST);                          \
	}                                                                                      \
	static __always_inline void prefix##_inc(type *v)                                      \
	{                                                                                      \
		prefix##_add(1, v);                                                            \
	}                                                                                      \
	static __always_inline void prefix##_dec(type *v)                                      \
	{                                                                                      \
		prefix##_sub(1, v);                                                            \
	}                                                                                      \
	static __always_inline ctype prefix##_add_return(ctype i, type *v)                     \
	{                                                                                      \
		return __atomic_add_fetch(&v->counter, i, __ATOMIC_SEQ_CST);                   \
	}                                                                                      \
	static __always_inline ctype prefix##_sub_return(ctype i, type *v)                     \
	{                                                                                      \
		return __atomic_sub_fetch(&v->counter, i, __ATOMIC_SEQ_CST);                   \
	}                                                                                      \
	static __always_inline ctype prefix##_inc_return(type *v)                              \
	{                                                                                      \
		return prefix##_add_return(1, v);                                              \
	}                                                                                      \
	static __always_inline ctype prefix##_dec_return(type *v)                              \
	{                                                                                      \
		return prefix##_sub_return(1, v);                                              \
	}                                                                                      \
	static __always_inline ctype prefix##_fetch_add(ctype i, type *v)                      \
	{                                                                                      \
		return __atomic_fetch_add(&v->counter, i, __ATOMIC_SEQ_CST);                   \
	}                                                                                      \
	static __always_inline ctype prefix##_fetch_or(ctype i, type *v)                       \
	{                                                                                      \
		return __atomic_fetch_or(&v->counter, i, __ATOMIC_SEQ_CST);                    \
	}                                                                                      \
	static __always_inline bool prefix##_sub_and_test(ctype i, type *v)                    \
	{                                                                                      \
		return prefix##_sub_return(i, v) == 0;                                         \
	}                                                                                      \
	static __always_inline bool prefix##_dec_and_test(type *v)                             \
	{                                                                                      \
		return prefix##_sub_return(1, v) == 0;                                         \
	}                                                                                      \
	static __always_inline bool prefix##_inc_and_test(type *v)                             \
	{                                                                                      \
		return prefix##_add_return(1, v) == 0;                                         \
	}                                                                                      \
	static __always_inline ctype prefix##_xchg(type *v, ctype i)                           \
	{                                                                                      \
		return xchg(&v->counter, i);                                                   \
	}                                                                                      \
	static __always_inline ctype prefix##_cmpxchg(type *v, ctype old, ctype i)             \
	{                                                                                      \
		return cmpxchg(&v->counter, old, i);                                           \
	}                                                                                      \
	static __always_inline bool prefix##_try_cmpxchg(type *v, ctype *old, ctype i)         \
	{                                                                                      \
		return try_cmpxchg(&v->counter, old, i);                                       \
	}                                                                                      \
	static __always_inline ctype prefix##_fetch_add_unless(type *v, ctype a, ctype u)      \
	{                                                                                      \
		ctype c = prefix##_read(v);                                                    \
                                                                                               \
		do {                                                                           \
			if (c == u)                                                            \
				break;                                                         \
		} while (!prefix##_try_cmpxchg(v, &c, c + a));                                 \
		return c;                                                                      \
	}                                                                                      \
	static __always_inline bool prefix##_add_unless(type *v, ctype a, ctype u)             \
	{                                                                                      \
		return prefix##_fetch_add_unless(v, a, u) != u;                                \
	}                                                                                      \
	static __always_inline bool prefix##_inc_not_zero(type *v)                             \
	{                                                                                      \
		return prefix##_add_unless(v, 1, 0);                                           \
	}

__ATOMIC_OPS(atomic, atomic_t, int)
__ATOMIC_OPS(atomic64, atomic64_t, s64)
__ATOMIC_OPS(atomic_long, atomic_long_t, long)

#define atomic_read_acquire(v) atomic_read(v)
#define atomic_set_release(v, i) atomic_set(v, i)
#define atomic_long_read_acquire(v) atomic_long_read(v)

#endif
