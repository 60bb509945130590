/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_REFCOUNT_H
#define GUEST_REFCOUNT_H

#include <linux/ftrace.h>
#include <linux/sched.h>

/* A counted call. Its return address, at slot, was replaced by klp_refcount_return. */
struct klp_counted_call {
	struct klp_counted_call *next;
	struct task_struct *task;
	unsigned long *slot;
	unsigned long return_address;
};

/* The counted calls that have not returned. */
struct klp_refcount {
	unsigned long count;
	/* The number of calls that were not counted, as there was no free entry. */
	unsigned long lost;
	struct klp_counted_call *calls;
	struct klp_counted_call *unused;
	/* The number of entries of klp_counted_calls that were ever used. */
	unsigned long used;
};

#define KLP_COUNTED_CALLS 4096

extern struct klp_refcount klp_refcount;

extern void klp_refcount_enter(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op,
			       struct ftrace_regs *fregs);
extern unsigned long klp_refcount_exit(unsigned long *slot);
extern void klp_refcount_return(void);
extern void klp_refcount_zero(void);

#endif
