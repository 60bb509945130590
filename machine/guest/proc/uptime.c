/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /proc/uptime: fs/proc/uptime.c. */

#include <linux/init.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/time64.h>
#include <linux/timekeeping.h>

#include "internal.h"
#include "stat.h"

static int uptime_proc_show(struct seq_file *m, void *v)
{
	struct timespec64 uptime = ns_to_timespec64(ktime_get_boottime());
	struct timespec64 idle = ns_to_timespec64(get_idle_time());

	seq_printf(m, "%lu.%02lu %lu.%02lu\n",
		   (unsigned long)uptime.tv_sec, uptime.tv_nsec / (NSEC_PER_SEC / 100),
		   (unsigned long)idle.tv_sec, idle.tv_nsec / (NSEC_PER_SEC / 100));
	return 0;
}

static int __init proc_uptime_init(void)
{
	pde_make_permanent(proc_create_single("uptime", 0, NULL, uptime_proc_show));
	return 0;
}
fs_initcall(proc_uptime_init);
