/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting the calls of a set of functions that are under way, for the consistency model "refcount": the
 * handler of an ftrace_ops for the set replaces the return address of each call by that of
 * klp_refcount_return, as kretprobes do.
 */

#include <linux/preempt.h>

#include "refcount.h"

#ifdef CONFIG_LIVEPATCH

struct klp_refcount klp_refcount;
static struct klp_counted_call klp_counted_calls[KLP_COUNTED_CALLS];

static __always_inline struct klp_counted_call *klp_unused_call(void)
{
	struct klp_counted_call *call = klp_refcount.unused;

	if (call)
		klp_refcount.unused = call->next;
	else if (klp_refcount.used < KLP_COUNTED_CALLS)
		call = &klp_counted_calls[klp_refcount.used++];
	return call;
}

void notrace klp_refcount_enter(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op,
				struct ftrace_regs *fregs)
{
	struct klp_counted_call *call;

	preempt_disable_notrace();
	call = klp_unused_call();
	if (call) {
		call->next = klp_refcount.calls;
		klp_refcount.calls = call;
		call->task = current;
		call->slot = (unsigned long *)fregs->regs.sp;
		call->return_address = *call->slot;
		*call->slot = (unsigned long)klp_refcount_return;
		klp_refcount.count++;
	} else {
		klp_refcount.lost++;
	}
	preempt_enable_notrace();
}

/* End the call whose return address was at slot. Return the address that it returns to. */
unsigned long notrace klp_refcount_exit(unsigned long *slot)
{
	struct klp_counted_call **link, *call;
	unsigned long to = 0;

	preempt_disable_notrace();
	for (link = &klp_refcount.calls; (call = *link) != NULL; link = &call->next) {
		if (call->slot == slot && call->task == current) {
			to = call->return_address;
			*link = call->next;
			call->next = klp_refcount.unused;
			klp_refcount.unused = call;
			if (!--klp_refcount.count)
				klp_refcount_zero();
			break;
		}
	}
	preempt_enable_notrace();
	return to;
}

#endif /* CONFIG_LIVEPATCH */
