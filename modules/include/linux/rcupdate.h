/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_RCUPDATE_H
#define _LINUX_RCUPDATE_H

#include <linux/compiler.h>
#include <linux/irqflags.h>
#include <linux/preempt.h>
#include <asm/barrier.h>

/* A read-side critical section has preemption disabled. */
#define rcu_read_lock() preempt_disable()
#define rcu_read_unlock() preempt_enable()
#define rcu_read_lock_sched() preempt_disable()
#define rcu_read_unlock_sched() preempt_enable()
#define rcu_read_lock_held() 1
#define rcu_is_watching() true

#define RCU_INIT_POINTER(p, v) WRITE_ONCE(p, (typeof(p))(v))
#define rcu_assign_pointer(p, v) smp_store_release(&(p), (typeof(p))(v))
#define rcu_access_pointer(p) READ_ONCE(p)
#define rcu_dereference(p) READ_ONCE(p)
#define rcu_dereference_sched(p) READ_ONCE(p)
#define rcu_dereference_raw(p) READ_ONCE(p)
#define rcu_dereference_protected(p, c) (p)
#define rcu_dereference_check(p, c) READ_ONCE(p)
#define rcu_pointer_handoff(p) (p)

extern void call_rcu(struct rcu_head *head, rcu_callback_t func);
extern void synchronize_rcu(void);
extern void synchronize_rcu_tasks(void);
extern void rcu_barrier(void);
extern void kvfree_call_rcu(struct rcu_head *head, void *ptr);

#define kfree_rcu(ptr, rhf)                                     \
	do {                                                    \
		typeof(ptr) ___p = (ptr);                       \
		if (___p)                                       \
			kvfree_call_rcu(&___p->rhf, ___p);      \
	} while (0)

#endif
