/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_PREEMPT_H
#define _ASM_PREEMPT_H

#include <linux/linkage.h>
#include <linux/types.h>
#include <asm/percpu.h>

DECLARE_PER_CPU(int, __preempt_count);

/*
 * The top bit is set while there is no need to reschedule. So the count becomes 0 only if
 * preemption is enabled again and a task waits for the CPU.
 */
#define PREEMPT_NEED_RESCHED 0x80000000

static __always_inline int preempt_count(void)
{
	return this_cpu_read(__preempt_count) & ~PREEMPT_NEED_RESCHED;
}

static __always_inline void __preempt_count_add(int val)
{
	asm volatile("addl %1, %%gs:%0" : "+m"(__preempt_count) : "ir"(val) : "cc", "memory");
}

static __always_inline void __preempt_count_sub(int val)
{
	__preempt_count_add(-val);
}

static __always_inline bool __preempt_count_dec_and_test(void)
{
	bool zero;

	asm volatile("decl %%gs:%0" : "+m"(__preempt_count), "=@cce"(zero) : : "memory");
	return zero;
}

static __always_inline bool should_resched(int preempt_offset)
{
	return this_cpu_read(__preempt_count) == preempt_offset;
}

extern asmlinkage void preempt_schedule(void);
extern asmlinkage void preempt_schedule_notrace(void);

#endif
