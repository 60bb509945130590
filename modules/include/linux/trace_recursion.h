/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_TRACE_RECURSION_H
#define _LINUX_TRACE_RECURSION_H

#include <linux/preempt.h>
#include <linux/sched.h>

/*
 * current->trace_recursion has four bits for the callbacks and four for ftrace_ops_list_func(),
 * one for each context: NMI, interrupt, softirq, task.
 */
#define TRACE_CONTEXT_BITS 4
#define TRACE_FTRACE_START 0
#define TRACE_LIST_START (TRACE_FTRACE_START + TRACE_CONTEXT_BITS)

static __always_inline int trace_get_context_bit(void)
{
	int count = preempt_count();

	if (likely(!(count & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_OFFSET))))
		return 3;
	if (count & NMI_MASK)
		return 0;
	return count & HARDIRQ_MASK ? 1 : 2;
}

static __always_inline int trace_test_and_set_recursion(unsigned long ip, unsigned long pip,
							int start)
{
	int bit = start + trace_get_context_bit();

	if (current->trace_recursion & (1UL << bit))
		return -1;
	current->trace_recursion |= 1UL << bit;
	barrier();
	preempt_disable_notrace();
	return bit;
}

static __always_inline void trace_clear_recursion(int bit)
{
	preempt_enable_notrace();
	barrier();
	current->trace_recursion &= ~(1UL << bit);
}

/* Return a negative number if the caller traces itself. Then it must return at once. */
static __always_inline int ftrace_test_recursion_trylock(unsigned long ip, unsigned long parent_ip)
{
	return trace_test_and_set_recursion(ip, parent_ip, TRACE_FTRACE_START);
}

static __always_inline void ftrace_test_recursion_unlock(int bit)
{
	trace_clear_recursion(bit);
}

#endif
