/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_FTRACE_H
#define _LINUX_FTRACE_H

#include <linux/kallsyms.h>
#include <linux/linkage.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ptrace.h>
#include <linux/trace_recursion.h>
#include <linux/types.h>

#define MCOUNT_INSN_SIZE 5
#define FTRACE_LOCATION_SIZE MCOUNT_INSN_SIZE

struct ftrace_ops;

/* The registers at the call site. They are complete only if the ops has SAVE_REGS. */
struct ftrace_regs {
	struct pt_regs regs;
};

static __always_inline struct pt_regs *ftrace_get_regs(struct ftrace_regs *fregs)
{
	if (!fregs)
		return NULL;
	/* ftrace_caller, which does not save all registers, sets CS to 0. */
	return fregs->regs.cs ? &fregs->regs : NULL;
}

#define ftrace_instruction_pointer_set(fregs, _ip) do { (fregs)->regs.ip = (_ip); } while (0)
#define ftrace_regs_set_instruction_pointer ftrace_instruction_pointer_set
#define ftrace_regs_get_instruction_pointer(fregs) ((fregs)->regs.ip)

typedef void (*ftrace_func_t)(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op,
			      struct ftrace_regs *fregs);

enum {
	FTRACE_OPS_FL_ENABLED = BIT(0),
	FTRACE_OPS_FL_DYNAMIC = BIT(1),
	FTRACE_OPS_FL_SAVE_REGS = BIT(2),
	FTRACE_OPS_FL_SAVE_REGS_IF_SUPPORTED = BIT(3),
	FTRACE_OPS_FL_RECURSION = BIT(4),
	FTRACE_OPS_FL_STUB = BIT(5),
	FTRACE_OPS_FL_INITIALIZED = BIT(6),
	FTRACE_OPS_FL_DELETED = BIT(7),
	FTRACE_OPS_FL_ADDING = BIT(8),
	FTRACE_OPS_FL_REMOVING = BIT(9),
	FTRACE_OPS_FL_MODIFYING = BIT(10),
	FTRACE_OPS_FL_ALLOC_TRAMP = BIT(11),
	FTRACE_OPS_FL_IPMODIFY = BIT(12),
	FTRACE_OPS_FL_PID = BIT(13),
	FTRACE_OPS_FL_RCU = BIT(14),
	FTRACE_OPS_FL_TRACE_ARRAY = BIT(15),
	FTRACE_OPS_FL_PERMANENT = BIT(16),
	FTRACE_OPS_FL_DIRECT = BIT(17),
};

struct ftrace_hash {
	unsigned long size_bits;
	struct hlist_head *buckets;
	unsigned long count;
	unsigned long flags;
	struct rcu_head rcu;
};

struct ftrace_func_entry {
	struct hlist_node hlist;
	unsigned long ip;
	unsigned long direct;
};

/* A function is traced if filter_hash has it or is empty, and notrace_hash does not have it. */
struct ftrace_ops_hash {
	struct ftrace_hash __rcu *notrace_hash;
	struct ftrace_hash __rcu *filter_hash;
	struct mutex regex_lock;
};

struct ftrace_ops {
	ftrace_func_t func;
	struct ftrace_ops __rcu *next;
	unsigned long flags;
	void *private;
	ftrace_func_t saved_func;
	struct ftrace_ops_hash local_hash;
	struct ftrace_ops_hash *func_hash;
	struct ftrace_ops_hash old_hash;
	unsigned long trampoline;
	unsigned long trampoline_size;
	struct list_head list;
};

extern struct ftrace_ops __rcu *ftrace_ops_list;
extern struct ftrace_ops ftrace_list_end;
extern struct ftrace_ops *function_trace_op;
extern int ftrace_enabled;

extern int register_ftrace_function(struct ftrace_ops *ops);
extern int unregister_ftrace_function(struct ftrace_ops *ops);
extern int ftrace_set_filter_ip(struct ftrace_ops *ops, unsigned long ip, int remove, int reset);
extern int ftrace_set_filter(struct ftrace_ops *ops, unsigned char *buf, int len, int reset);
extern int ftrace_set_notrace(struct ftrace_ops *ops, unsigned char *buf, int len, int reset);
extern void ftrace_free_filter(struct ftrace_ops *ops);
extern unsigned long ftrace_location(unsigned long ip);

extern void arch_ftrace_ops_list_func(unsigned long ip, unsigned long parent_ip,
				      struct ftrace_ops *op, struct ftrace_regs *fregs);
extern void ftrace_stub(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op,
			struct ftrace_regs *fregs);

#endif
