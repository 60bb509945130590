/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SCHED_DEBUG_H
#define _LINUX_SCHED_DEBUG_H

#include <linux/linkage.h>

struct task_struct;

extern void show_stack(struct task_struct *task, unsigned long *sp, const char *loglvl);
extern void sched_show_task(struct task_struct *p);
/* For functions that only sleep: get_wchan() skips them. */
#define __sched __section(".sched.text")

#endif
