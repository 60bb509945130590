/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SCHED_SIGNAL_H
#define _LINUX_SCHED_SIGNAL_H

#include <linux/sched.h>

#include <linux/rculist.h>

#define next_task(p) list_entry_rcu((p)->tasks.next, struct task_struct, tasks)
#define for_each_process(p) for (p = &init_task; (p = next_task(p)) != &init_task;)
/* Threads are in the list of processes. */
#define for_each_process_thread(p, t) \
	for_each_process(p)           \
		if (((t) = (p)))

static inline int signal_pending(struct task_struct *p)
{
	return unlikely(test_tsk_thread_flag(p, TIF_NOTIFY_SIGNAL) ||
			test_tsk_thread_flag(p, TIF_SIGPENDING));
}

extern int send_sig(int sig, struct task_struct *p, int priv);
extern void allow_signal(int sig);
extern void flush_signals(struct task_struct *p);

#endif
