/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The choice of the version of a patched function that a call runs. kernel/livepatch/patch.c */

#include <linux/bug.h>
#include <linux/container_of.h>
#include <linux/rculist.h>

#include "livepatch.h"
#include "bug_at.h"

#ifdef CONFIG_LIVEPATCH

DEFINE_MUTEX(klp_mutex);
LIST_HEAD(klp_patches);
LIST_HEAD(klp_ops);
struct klp_patch *klp_transition_patch;
int klp_target_state = KLP_UNDEFINED;

/*
 * Return the function that the current task runs instead of the original; NULL: the original.
 *
 * The barriers pair with those of klp_init_transition() and klp_start_transition(): a CPU that sees the
 * function on the stack sees its transition flag, and a CPU that sees the flag sees the target state.
 * So the patch_state that it reads is not KLP_UNDEFINED.
 */
static __always_inline struct klp_func *klp_current_func(struct klp_ops *ops)
{
	struct klp_func *func = list_first_or_null_rcu(&ops->func_stack, struct klp_func, stack_node);

	/* klp_unpatch_func() empties the stack only after it has unregistered the handler. */
	if (WARN_ON_ONCE_AT("kernel/livepatch/patch.c", 70, !func))
		return NULL;
	smp_rmb();
	if (unlikely(func->transition)) {
		int patch_state;

		smp_rmb();
		patch_state = current->patch_state;
		WARN_ON_ONCE_AT("kernel/livepatch/patch.c", 98, patch_state == KLP_UNDEFINED);
		if (patch_state == KLP_UNPATCHED) {
			/* The version below this one. Below the last one is the original. */
			struct list_head *below = READ_ONCE(func->stack_node.next);

			if (below == &ops->func_stack)
				return NULL;
			func = list_entry(below, struct klp_func, stack_node);
		}
	}
	/* A nop leads callers to the original. */
	return func->nop ? NULL : func;
}

void notrace klp_ftrace_handler(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *fops,
				struct ftrace_regs *fregs)
{
	struct klp_func *func;
	/* This disables preemption, so that klp_synchronize_transition() waits for the handler. */
	int bit = ftrace_test_recursion_trylock(ip, parent_ip);

	if (WARN_ON_ONCE_AT("kernel/livepatch/patch.c", 59, bit < 0))
		return;
	func = klp_current_func(container_of(fops, struct klp_ops, fops));
	if (func)
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)func->new_func);
	ftrace_test_recursion_unlock(bit);
}

#endif
