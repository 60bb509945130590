/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_STACKTRACE_H
#define _LINUX_STACKTRACE_H

#include <linux/types.h>

struct task_struct;

extern unsigned int stack_trace_save(unsigned long *store, unsigned int size,
				     unsigned int skipnr);
extern void stack_trace_print(const unsigned long *trace, unsigned int nr_entries, int spaces);
extern int stack_trace_save_tsk_reliable(struct task_struct *tsk, unsigned long *store,
					 unsigned int size);

#endif
