/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /proc/loadavg: fs/proc/loadavg.c. */

#include <linux/init.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/sched/loadavg.h>
#include <linux/sched/stat.h>
#include <linux/seq_file.h>

#include "internal.h"

static int loadavg_proc_show(struct seq_file *m, void *v)
{
	unsigned long avnrun[3];
	/* Tasks are in the list in the order of their creation. */
	pid_t last = list_last_entry(&init_task.tasks, struct task_struct, tasks)->pid;

	get_avenrun(avnrun, FIXED_1 / 200, 0);
	seq_printf(m, "%lu.%02lu %lu.%02lu %lu.%02lu %u/%d %d\n",
		   LOAD_INT(avnrun[0]), LOAD_FRAC(avnrun[0]),
		   LOAD_INT(avnrun[1]), LOAD_FRAC(avnrun[1]),
		   LOAD_INT(avnrun[2]), LOAD_FRAC(avnrun[2]),
		   nr_running(), nr_processes(), last);
	return 0;
}

static int __init proc_loadavg_init(void)
{
	pde_make_permanent(proc_create_single("loadavg", 0, NULL, loadavg_proc_show));
	return 0;
}
fs_initcall(proc_loadavg_init);
