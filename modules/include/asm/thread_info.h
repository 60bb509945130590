/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_THREAD_INFO_H
#define _ASM_THREAD_INFO_H

#include <linux/bits.h>
#include <linux/types.h>

struct thread_info {
	unsigned long flags;
	unsigned long syscall_work;
	u32 status;
};

#define INIT_THREAD_INFO(tsk) { .flags = 0 }

#define TIF_NOTIFY_RESUME 1
#define TIF_SIGPENDING 2
#define TIF_NEED_RESCHED 3
#define TIF_PATCH_PENDING 13
#define TIF_NOTIFY_SIGNAL 17
#define _TIF_NOTIFY_RESUME (1 << TIF_NOTIFY_RESUME)
#define _TIF_SIGPENDING (1 << TIF_SIGPENDING)
#define _TIF_NEED_RESCHED (1 << TIF_NEED_RESCHED)
#define _TIF_PATCH_PENDING (1 << TIF_PATCH_PENDING)
#define _TIF_NOTIFY_SIGNAL (1 << TIF_NOTIFY_SIGNAL)

#endif
