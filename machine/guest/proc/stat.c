/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /proc/stat: fs/proc/stat.c. */

#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/sched/stat.h>
#include <linux/seq_file.h>
#include <linux/time64.h>
#include <linux/timekeeping.h>

#include "internal.h"
#include "stat.h"

enum cpu_usage_stat {
	CPUTIME_USER,
	CPUTIME_NICE,
	CPUTIME_SYSTEM,
	CPUTIME_SOFTIRQ,
	CPUTIME_IRQ,
	CPUTIME_IDLE,
	CPUTIME_IOWAIT,
	CPUTIME_STEAL,
	CPUTIME_GUEST,
	CPUTIME_GUEST_NICE,
	NR_STATS,
};

struct kernel_cpustat {
	u64 cpustat[NR_STATS];
};

/* CPU times in nanoseconds. Time that is not accounted otherwise is idle time. */
DEFINE_PER_CPU(struct kernel_cpustat, kernel_cpustat);
unsigned long total_forks;

u64 get_idle_time(void)
{
	u64 idle = ktime_get_boottime();

	for (int i = 0; i < NR_STATS; i++)
		if (i != CPUTIME_IDLE)
			idle -= kernel_cpustat.cpustat[i];
	return idle;
}

static void show_cpu(struct seq_file *m, const char *name)
{
	static const enum cpu_usage_stat order[] = {
		CPUTIME_USER, CPUTIME_NICE, CPUTIME_SYSTEM, CPUTIME_IDLE, CPUTIME_IOWAIT,
		CPUTIME_IRQ, CPUTIME_SOFTIRQ, CPUTIME_STEAL, CPUTIME_GUEST, CPUTIME_GUEST_NICE,
	};

	seq_puts(m, name);
	for (int i = 0; i < NR_STATS; i++) {
		u64 time = kernel_cpustat.cpustat[order[i]];

		if (order[i] == CPUTIME_IDLE)
			time = get_idle_time();
		seq_put_decimal_ull(m, " ", nsec_to_clock_t(time));
	}
	seq_putc(m, '\n');
}

static int show_stat(struct seq_file *m, void *v)
{
	s64 boot = ktime_get_real() - ktime_get_boottime();

	/* A second space makes the name as wide as those of the CPUs. */
	show_cpu(m, "cpu ");
	show_cpu(m, "cpu0");
	seq_puts(m, "intr 0\nctxt 0\n");
	seq_printf(m, "btime %llu\nprocesses %lu\nprocs_running %u\nprocs_blocked 0\n",
		   (unsigned long long)boot / NSEC_PER_SEC, total_forks, nr_running());
	seq_puts(m, "softirq 0 0 0 0 0 0 0 0 0 0 0\n");
	return 0;
}

static int __init proc_stat_init(void)
{
	pde_make_permanent(proc_create_single("stat", 0, NULL, show_stat));
	return 0;
}
fs_initcall(proc_stat_init);
