/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SWAIT_H
#define _LINUX_SWAIT_H

#include <linux/list.h>
#include <linux/spinlock_types.h>

struct swait_queue_head {
	raw_spinlock_t lock;
	struct list_head task_list;
};

#define __SWAIT_QUEUE_HEAD_INITIALIZER(name) { .task_list = LIST_HEAD_INIT((name).task_list) }

static inline void init_swait_queue_head(struct swait_queue_head *q)
{
	INIT_LIST_HEAD(&q->task_list);
}

#endif
