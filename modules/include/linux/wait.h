/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_WAIT_H
#define _LINUX_WAIT_H

#include <linux/list.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

struct wait_queue_entry;
typedef int (*wait_queue_func_t)(struct wait_queue_entry *wq_entry, unsigned int mode, int flags,
				 void *key);

#define WQ_FLAG_EXCLUSIVE 0x01

struct wait_queue_entry {
	unsigned int flags;
	void *private;
	wait_queue_func_t func;
	struct list_head entry;
};
typedef struct wait_queue_entry wait_queue_entry_t;

struct wait_queue_head {
	spinlock_t lock;
	struct list_head head;
};
typedef struct wait_queue_head wait_queue_head_t;

extern int default_wake_function(struct wait_queue_entry *wq_entry, unsigned int mode, int flags,
				 void *key);
extern int autoremove_wake_function(struct wait_queue_entry *wq_entry, unsigned int mode,
				    int flags, void *key);

#define __WAITQUEUE_INITIALIZER(name, tsk) { .private = tsk, .func = default_wake_function }
#define DECLARE_WAITQUEUE(name, tsk) \
	struct wait_queue_entry name = __WAITQUEUE_INITIALIZER(name, tsk)
#define DEFINE_WAIT_FUNC(name, function)                        \
	struct wait_queue_entry name = {                        \
		.private = current,                             \
		.func = function,                               \
		.entry = LIST_HEAD_INIT((name).entry),          \
	}
#define DEFINE_WAIT(name) DEFINE_WAIT_FUNC(name, autoremove_wake_function)
#define __WAIT_QUEUE_HEAD_INITIALIZER(name) { .head = LIST_HEAD_INIT(name.head) }
#define DECLARE_WAIT_QUEUE_HEAD(name) \
	struct wait_queue_head name = __WAIT_QUEUE_HEAD_INITIALIZER(name)
#define DECLARE_WAIT_QUEUE_HEAD_ONSTACK(name) DECLARE_WAIT_QUEUE_HEAD(name)

static inline void init_waitqueue_head(struct wait_queue_head *wq_head)
{
	INIT_LIST_HEAD(&wq_head->head);
}

static inline int waitqueue_active(struct wait_queue_head *wq_head)
{
	return !list_empty(&wq_head->head);
}

extern void add_wait_queue(struct wait_queue_head *wq_head, struct wait_queue_entry *wq_entry);
extern void add_wait_queue_exclusive(struct wait_queue_head *wq_head,
				     struct wait_queue_entry *wq_entry);
extern void remove_wait_queue(struct wait_queue_head *wq_head, struct wait_queue_entry *wq_entry);
extern void init_wait_entry(struct wait_queue_entry *wq_entry, int flags);
extern void prepare_to_wait(struct wait_queue_head *wq_head, struct wait_queue_entry *wq_entry,
			    int state);
extern bool prepare_to_wait_exclusive(struct wait_queue_head *wq_head,
				      struct wait_queue_entry *wq_entry, int state);
extern long prepare_to_wait_event(struct wait_queue_head *wq_head,
				  struct wait_queue_entry *wq_entry, int state);
extern void finish_wait(struct wait_queue_head *wq_head, struct wait_queue_entry *wq_entry);
extern int __wake_up(struct wait_queue_head *wq_head, unsigned int mode, int nr, void *key);

#define wake_up(x) __wake_up(x, TASK_NORMAL, 1, NULL)
#define wake_up_nr(x, nr) __wake_up(x, TASK_NORMAL, nr, NULL)
#define wake_up_all(x) __wake_up(x, TASK_NORMAL, 0, NULL)
#define wake_up_interruptible(x) __wake_up(x, TASK_INTERRUPTIBLE, 1, NULL)
#define wake_up_interruptible_all(x) __wake_up(x, TASK_INTERRUPTIBLE, 0, NULL)

/* The value of the macro is 0, or -ERESTARTSYS if a signal ended the wait. */
#define ___wait_event(wq_head, condition, state, cmd)                                \
	({                                                                           \
		struct wait_queue_entry __wq_entry;                                  \
		long __wait_ret = 0;                                                 \
		init_wait_entry(&__wq_entry, 0);                                     \
		for (;;) {                                                           \
			long __int = prepare_to_wait_event(&(wq_head), &__wq_entry, state); \
			if (condition)                                               \
				break;                                               \
			if ((state) != TASK_UNINTERRUPTIBLE && __int) {              \
				__wait_ret = __int;                                  \
				break;                                               \
			}                                                            \
			cmd;                                                         \
		}                                                                    \
		finish_wait(&(wq_head), &__wq_entry);                                \
		__wait_ret;                                                          \
	})
#define wait_event(wq_head, condition)                                                     \
	do {                                                                               \
		if (!(condition))                                                          \
			(void)___wait_event(wq_head, condition, TASK_UNINTERRUPTIBLE, schedule()); \
	} while (0)
#define wait_event_interruptible(wq_head, condition)                                       \
	((condition) ? 0 : (int)___wait_event(wq_head, condition, TASK_INTERRUPTIBLE, schedule()))
#define wait_event_killable(wq_head, condition)                                            \
	((condition) ? 0 : (int)___wait_event(wq_head, condition, TASK_KILLABLE, schedule()))
/* The value of the macro is the remaining time, at least 1 if the condition is true, else 0. */
#define __wait_event_timeout(wq_head, condition, state, timeout)                           \
	({                                                                                 \
		long __left = (timeout), __err = 0;                                        \
		if (!(condition))                                                          \
			__err = ___wait_event(wq_head, ((condition) ? (__left = __left ?: 1) : !__left), \
					      state, __left = schedule_timeout(__left));   \
		__err ?: __left;                                                           \
	})
#define wait_event_timeout(wq_head, condition, timeout) \
	__wait_event_timeout(wq_head, condition, TASK_UNINTERRUPTIBLE, timeout)
#define wait_event_interruptible_timeout(wq_head, condition, timeout) \
	__wait_event_timeout(wq_head, condition, TASK_INTERRUPTIBLE, timeout)

#endif
