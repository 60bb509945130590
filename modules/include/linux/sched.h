/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SCHED_H
#define _LINUX_SCHED_H

#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/thread_info.h>
#include <linux/types.h>
#include <asm/current.h>
#include <asm/page.h>
#include <asm/processor.h>

struct mm_struct;

#define TASK_COMM_LEN 16

#define TASK_RUNNING 0x00000000
#define TASK_INTERRUPTIBLE 0x00000001
#define TASK_UNINTERRUPTIBLE 0x00000002
#define __TASK_STOPPED 0x00000004
#define __TASK_TRACED 0x00000008
#define EXIT_DEAD 0x00000010
#define EXIT_ZOMBIE 0x00000020
#define TASK_PARKED 0x00000040
#define TASK_DEAD 0x00000080
#define TASK_WAKEKILL 0x00000100
#define TASK_WAKING 0x00000200
#define TASK_NOLOAD 0x00000400
#define TASK_NEW 0x00000800
#define TASK_FROZEN 0x00008000
#define TASK_KILLABLE (TASK_WAKEKILL | TASK_UNINTERRUPTIBLE)
#define TASK_IDLE (TASK_UNINTERRUPTIBLE | TASK_NOLOAD)
#define TASK_NORMAL (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE)

#define PF_IDLE 0x00000002
#define PF_EXITING 0x00000004
#define PF_WQ_WORKER 0x00000020
#define PF_NOFREEZE 0x00008000
#define PF_KTHREAD 0x00200000

#define MAX_SCHEDULE_TIMEOUT LONG_MAX

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	void *stack;
	refcount_t usage;
	unsigned int flags;
	int on_cpu;
	int prio;
	int static_prio;
	struct list_head tasks;
	struct mm_struct *mm;
	int exit_state;
	int exit_code;
	pid_t pid;
	pid_t tgid;
	struct task_struct __rcu *real_parent;
	struct list_head children;
	struct list_head sibling;
	struct task_struct *group_leader;
	char comm[TASK_COMM_LEN];
	int patch_state;
	unsigned long trace_recursion;
	struct thread_struct thread;
};

extern struct task_struct init_task;

#define task_thread_info(task) (&(task)->thread_info)
#define task_is_running(task) (READ_ONCE((task)->__state) == TASK_RUNNING)
#define get_current_state() READ_ONCE(current->__state)
#define __set_current_state(state_value) WRITE_ONCE(current->__state, (state_value))
#define set_current_state(state_value) smp_store_mb(current->__state, (state_value))

static inline void set_tsk_thread_flag(struct task_struct *tsk, int flag)
{
	set_ti_thread_flag(task_thread_info(tsk), flag);
}

static inline void clear_tsk_thread_flag(struct task_struct *tsk, int flag)
{
	clear_ti_thread_flag(task_thread_info(tsk), flag);
}

static inline int test_and_clear_tsk_thread_flag(struct task_struct *tsk, int flag)
{
	return test_and_clear_ti_thread_flag(task_thread_info(tsk), flag);
}

static inline int test_tsk_thread_flag(struct task_struct *tsk, int flag)
{
	return test_ti_thread_flag(task_thread_info(tsk), flag);
}

static inline pid_t task_pid_nr(struct task_struct *tsk)
{
	return tsk->pid;
}

static inline pid_t task_tgid_nr(struct task_struct *tsk)
{
	return tsk->tgid;
}

static __always_inline bool need_resched(void)
{
	return unlikely(tif_need_resched());
}

extern asmlinkage void schedule(void);
extern long schedule_timeout(long timeout);
extern long schedule_timeout_interruptible(long timeout);
extern long schedule_timeout_killable(long timeout);
extern long schedule_timeout_uninterruptible(long timeout);
extern void io_schedule(void);
extern void yield(void);
extern int wake_up_process(struct task_struct *tsk);
extern int wake_up_state(struct task_struct *tsk, unsigned int state);
extern char *__get_task_comm(char *to, size_t len, struct task_struct *tsk);

#define get_task_comm(buf, tsk)                              \
	({                                                   \
		BUILD_BUG_ON(sizeof(buf) != TASK_COMM_LEN);  \
		__get_task_comm(buf, sizeof(buf), tsk);      \
	})

/* Yield if another task waits for the CPU. Stack traces of a task in here are reliable. */
extern int __cond_resched(void);
#define cond_resched() __cond_resched()

#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#endif
