/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_PROC_STAT_H
#define GUEST_PROC_STAT_H

#include <linux/types.h>

/* Nanoseconds in which the CPU had nothing to do. */
extern u64 get_idle_time(void);

#endif
