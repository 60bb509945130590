/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first task, the list of tasks and their attributes: init/init_task.c, kernel/fork.c,
 * kernel/sched/core.c.
 */

#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <linux/string.h>

#define MAX_PRIO_NORMAL 120

extern void preempt_schedule_common(void);

struct task_struct init_task = {
	.thread_info = INIT_THREAD_INFO(init_task),
	.__state = TASK_RUNNING,
	.usage = REFCOUNT_INIT(2),
	.flags = PF_KTHREAD,
	.on_cpu = 1,
	.prio = MAX_PRIO_NORMAL,
	.static_prio = MAX_PRIO_NORMAL,
	.tasks = LIST_HEAD_INIT(init_task.tasks),
	.real_parent = &init_task,
	.children = LIST_HEAD_INIT(init_task.children),
	.sibling = LIST_HEAD_INIT(init_task.sibling),
	.group_leader = &init_task,
	.comm = "swapper/0",
	.patch_state = -1, /* KLP_UNDEFINED */
};
EXPORT_SYMBOL(init_task);

DEFINE_PER_CPU(struct task_struct *, current_task) = &init_task;
EXPORT_PER_CPU_SYMBOL(current_task);
DEFINE_PER_CPU(int, __preempt_count) = INIT_PREEMPT_COUNT;
EXPORT_PER_CPU_SYMBOL(__preempt_count);

enum system_states system_state = SYSTEM_RUNNING;
EXPORT_SYMBOL(system_state);

/* preempt_enable() calls it if another task waits for the CPU. It yields without sleeping. */
void notrace preempt_schedule(void)
{
	if (!preempt_count() && !irqs_disabled())
		preempt_schedule_common();
}
EXPORT_SYMBOL(preempt_schedule);

void notrace preempt_schedule_notrace(void)
{
	preempt_schedule();
}
EXPORT_SYMBOL_GPL(preempt_schedule_notrace);

char *__get_task_comm(char *to, size_t len, struct task_struct *tsk)
{
	strscpy_pad(to, tsk->comm, len);
	return to;
}
EXPORT_SYMBOL_GPL(__get_task_comm);

int nr_processes(void)
{
	struct task_struct *task;
	int n = 0;

	rcu_read_lock();
	for_each_process(task)
		n++;
	rcu_read_unlock();
	return n;
}

unsigned int nr_running(void)
{
	struct task_struct *task;
	unsigned int n = 0;

	rcu_read_lock();
	for_each_process(task)
		n += task_is_running(task);
	rcu_read_unlock();
	return n;
}

/* Signals are not queued: one is pending or not. */
void flush_signals(struct task_struct *p)
{
	clear_tsk_thread_flag(p, TIF_SIGPENDING);
}
EXPORT_SYMBOL(flush_signals);
