/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SCHED_STAT_H
#define _LINUX_SCHED_STAT_H

#include <linux/types.h>

extern unsigned long total_forks;
extern int nr_threads;
extern int nr_processes(void);
extern unsigned int nr_running(void);
extern unsigned long long nr_context_switches(void);

#endif
