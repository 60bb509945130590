/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SCHED_CLOCK_H
#define _LINUX_SCHED_CLOCK_H

#include <linux/types.h>

extern unsigned long long sched_clock(void);
extern u64 local_clock(void);

#endif
