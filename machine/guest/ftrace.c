/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The list of ftrace_ops and the function that calls them: kernel/trace/ftrace.c. */

#include <linux/ftrace.h>
#include <linux/hash.h>

struct ftrace_ops ftrace_list_end = {
	.func = ftrace_stub,
	.flags = FTRACE_OPS_FL_STUB,
	.local_hash.regex_lock = __MUTEX_INITIALIZER(ftrace_list_end.local_hash.regex_lock),
	.func_hash = &ftrace_list_end.local_hash,
};
struct ftrace_ops *ftrace_ops_list = &ftrace_list_end;
/* The ops that ftrace_caller and ftrace_regs_caller pass to the function that they call. */
struct ftrace_ops *function_trace_op = &ftrace_list_end;
int ftrace_enabled = 1;
/* The ops of the function tracer. */
struct ftrace_ops global_ops = {
	.func = ftrace_stub,
	.local_hash.regex_lock = __MUTEX_INITIALIZER(global_ops.local_hash.regex_lock),
	.func_hash = &global_ops.local_hash,
};

static __always_inline bool ftrace_hash_empty(struct ftrace_hash *hash)
{
	return !hash || !hash->count;
}

static __always_inline bool ftrace_hash_contains(struct ftrace_hash *hash, unsigned long ip)
{
	struct ftrace_func_entry *entry;
	unsigned long key = hash->size_bits ? hash_long(ip, hash->size_bits) : 0;

	hlist_for_each_entry(entry, &hash->buckets[key], hlist)
		if (entry->ip == ip)
			return true;
	return false;
}

/* Return whether ops traces the function at ip. */
static __always_inline bool ftrace_ops_test(struct ftrace_ops *ops, unsigned long ip)
{
	struct ftrace_hash *filter = READ_ONCE(ops->func_hash->filter_hash);
	struct ftrace_hash *notrace_hash = READ_ONCE(ops->func_hash->notrace_hash);

	if (!ftrace_hash_empty(filter) && !ftrace_hash_contains(filter, ip))
		return false;
	return ftrace_hash_empty(notrace_hash) || !ftrace_hash_contains(notrace_hash, ip);
}

/* The function called by a site that several ops trace: it calls those that trace it. */
void notrace arch_ftrace_ops_list_func(unsigned long ip, unsigned long parent_ip,
				       struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	int bit = trace_test_and_set_recursion(ip, parent_ip, TRACE_LIST_START);

	if (bit < 0)
		return;
	for (op = READ_ONCE(ftrace_ops_list); op != &ftrace_list_end; op = READ_ONCE(op->next)) {
		if (op->flags & FTRACE_OPS_FL_STUB)
			continue;
		if (ftrace_ops_test(op, ip))
			op->func(ip, parent_ip, op, fregs);
	}
	trace_clear_recursion(bit);
}
