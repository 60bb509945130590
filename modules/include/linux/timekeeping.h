/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_TIMEKEEPING_H
#define _LINUX_TIMEKEEPING_H

#include <linux/time64.h>

extern ktime_t ktime_get(void);
extern ktime_t ktime_get_real(void);
extern ktime_t ktime_get_boottime(void);
extern u64 ktime_get_ns(void);
extern u64 ktime_get_real_ns(void);
extern u64 ktime_get_boottime_ns(void);
extern time64_t ktime_get_seconds(void);
extern time64_t ktime_get_real_seconds(void);
extern void ktime_get_ts64(struct timespec64 *ts);
extern void ktime_get_real_ts64(struct timespec64 *ts);
extern void ktime_get_boottime_ts64(struct timespec64 *ts);
extern void getboottime64(struct timespec64 *ts);

#endif
