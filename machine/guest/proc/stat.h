/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_PROC_STAT_H
#define GUEST_PROC_STAT_H

#include <linux/types.h>

/* Return the idle time of the CPU in nanoseconds. */
extern u64 get_idle_time(void);

#endif
