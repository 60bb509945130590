/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_PERCPU_H
#define _ASM_PERCPU_H

#include <linux/percpu-defs.h>

/* Each is one instruction, in which a task cannot be preempted. */
#define this_cpu_read(var)                                                    \
	({                                                                    \
		typeof(var) __pcp;                                            \
		asm volatile("mov %%gs:%1, %0" : "=q"(__pcp) : "m"(var));     \
		__pcp;                                                        \
	})
/* For values that are constant for a task, as current: gcc may reuse a value that it has read. */
#define this_cpu_read_stable(var)                                             \
	({                                                                    \
		typeof(var) __pcp;                                            \
		asm("mov %%gs:%P1, %0" : "=r"(__pcp) : "p"(&(var)));          \
		__pcp;                                                        \
	})
#define this_cpu_write(var, val)                                              \
	do {                                                                  \
		asm volatile("mov %1, %%gs:%0" : "=m"(var) : "q"((typeof(var))(val))); \
	} while (0)
#define __this_cpu_op(op, var, val)                                           \
	do {                                                                  \
		asm volatile(op " %1, %%gs:%0" : "+m"(var) : "q"((typeof(var))(val)) : "cc"); \
	} while (0)
#define this_cpu_add(var, val) __this_cpu_op("add", var, val)
#define this_cpu_sub(var, val) __this_cpu_op("sub", var, val)
#define this_cpu_and(var, val) __this_cpu_op("and", var, val)
#define this_cpu_or(var, val) __this_cpu_op("or", var, val)
#define this_cpu_inc(var) this_cpu_add(var, 1)
#define this_cpu_dec(var) this_cpu_sub(var, 1)
#define raw_cpu_read this_cpu_read
#define raw_cpu_write this_cpu_write
#define __this_cpu_read this_cpu_read
#define __this_cpu_write this_cpu_write
#define __this_cpu_add this_cpu_add
#define __this_cpu_sub this_cpu_sub
#define __this_cpu_inc this_cpu_inc
#define __this_cpu_dec this_cpu_dec

#endif
