/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_BOTTOM_HALF_H
#define _LINUX_BOTTOM_HALF_H

#include <linux/preempt.h>

#define local_bh_disable() __preempt_count_add(SOFTIRQ_DISABLE_OFFSET)
#define local_bh_enable()                                    \
	do {                                                 \
		__preempt_count_sub(SOFTIRQ_DISABLE_OFFSET); \
		preempt_check_resched();                     \
	} while (0)

#endif
