/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_LIVEPATCH_H
#define GUEST_LIVEPATCH_H

#include <linux/ftrace.h>
#include <linux/list.h>
#include <linux/livepatch.h>
#include <linux/mutex.h>
#include <linux/sched.h>

/* The oldest ABI has no transitions, and so no names for these. */
#ifndef KLP_UNDEFINED
#define KLP_UNDEFINED -1
#define KLP_UNPATCHED 0
#define KLP_PATCHED 1
#endif

/*
 * One for each patched function. func_stack has the klp_func of every patch of the function, the
 * newest first; the newest one runs. The struct is freed with the last of them.
 */
struct klp_ops {
	struct list_head node;
	struct list_head func_stack;
	struct ftrace_ops fops;
};

extern struct mutex klp_mutex;
extern struct list_head klp_patches;
extern struct list_head klp_ops;
extern struct klp_patch *klp_transition_patch;
extern int klp_target_state;

extern void klp_ftrace_handler(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *fops,
			       struct ftrace_regs *fregs);

#endif
