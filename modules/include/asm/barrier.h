/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_BARRIER_H
#define _ASM_BARRIER_H

#include <linux/compiler.h>

#define mb() asm volatile("mfence" : : : "memory")
#define rmb() asm volatile("lfence" : : : "memory")
#define wmb() asm volatile("sfence" : : : "memory")

/* A single CPU sees its own accesses in order. */
#define smp_mb() barrier()
#define smp_rmb() barrier()
#define smp_wmb() barrier()
#define smp_mb__before_atomic() barrier()
#define smp_mb__after_atomic() barrier()
#define smp_read_barrier_depends() do { } while (0)
#define smp_store_mb(var, value)          \
	do {                              \
		WRITE_ONCE(var, value);   \
		barrier();                \
	} while (0)
#define smp_store_release(p, v)           \
	do {                              \
		barrier();                \
		WRITE_ONCE(*(p), v);      \
	} while (0)
#define smp_load_acquire(p)                       \
	({                                        \
		typeof(*(p)) ___p1 = READ_ONCE(*(p)); \
		barrier();                        \
		___p1;                            \
	})

#endif
