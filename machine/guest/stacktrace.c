/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stack traces by frame pointers: kernel/stacktrace.c. */

#include <linux/export.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/stacktrace.h>

struct frame {
	struct frame *caller;
	unsigned long return_address;
};

extern const char guest_return[];

/* Store the return addresses, innermost first, without the first skipnr. Return their number. */
unsigned int stack_trace_save(unsigned long *store, unsigned int size, unsigned int skipnr)
{
	const struct frame *frame = __builtin_frame_address(0);
	const void *top = task_stack_page(current) + THREAD_SIZE - sizeof(*frame);
	unsigned int n = 0;

	while (n < size && frame->return_address != (unsigned long)guest_return) {
		const struct frame *caller = frame->caller;

		if (skipnr)
			skipnr--;
		else
			store[n++] = frame->return_address;
		if (caller <= frame || (const void *)caller > top)
			break;
		frame = caller;
	}
	return n;
}
EXPORT_SYMBOL_GPL(stack_trace_save);

void stack_trace_print(const unsigned long *entries, unsigned int nr_entries, int spaces)
{
	for (unsigned int i = 0; i < nr_entries; i++)
		printk("%*c%pS\n", 1 + spaces, ' ', (void *)entries[i]);
}
EXPORT_SYMBOL_GPL(stack_trace_print);
