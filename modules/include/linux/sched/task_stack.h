/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SCHED_TASK_STACK_H
#define _LINUX_SCHED_TASK_STACK_H

#include <linux/sched.h>

static __always_inline void *task_stack_page(const struct task_struct *task)
{
	return task->stack;
}

#endif
