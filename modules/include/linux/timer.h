/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_TIMER_H
#define _LINUX_TIMER_H

#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/types.h>

struct timer_list {
	struct hlist_node entry;
	unsigned long expires;
	void (*function)(struct timer_list *timer);
	u32 flags;
};

#define TIMER_DEFERRABLE 0x00080000
#define TIMER_PINNED 0x00100000
#define TIMER_IRQSAFE 0x00200000

#define __TIMER_INITIALIZER(_function, _flags) \
	{ .entry = { .next = LIST_POISON2 }, .function = (_function), .flags = (_flags) }
#define DEFINE_TIMER(_name, _function) \
	struct timer_list _name = __TIMER_INITIALIZER(_function, 0)
#define timer_setup(timer, callback, flags) __init_timer(timer, callback, flags)
#define timer_setup_on_stack(timer, callback, flags) __init_timer(timer, callback, flags)
#define from_timer(var, callback_timer, timer_fieldname) \
	container_of(callback_timer, typeof(*var), timer_fieldname)

static inline void __init_timer(struct timer_list *timer, void (*func)(struct timer_list *),
				unsigned int flags)
{
	timer->entry.pprev = NULL;
	timer->function = func;
	timer->flags = flags;
}

static inline void destroy_timer_on_stack(struct timer_list *timer)
{
}

static inline int timer_pending(const struct timer_list *timer)
{
	return !hlist_unhashed(&timer->entry);
}

extern void add_timer(struct timer_list *timer);
extern int mod_timer(struct timer_list *timer, unsigned long expires);
extern int del_timer(struct timer_list *timer);
extern int del_timer_sync(struct timer_list *timer);
extern unsigned long round_jiffies(unsigned long j);
extern unsigned long round_jiffies_relative(unsigned long j);

#endif
