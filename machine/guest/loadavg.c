/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The load average: kernel/sched/loadavg.c. No tick samples the run queue. The load is computed
 * when it is read. The time since the last read counts as idle, as in a kernel with NO_HZ whose
 * CPU has slept.
 */

#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/sched/loadavg.h>
#include <linux/sched/stat.h>

/* 5 seconds and a tick; 1/exp(5s/1min), 1/exp(5s/5min), 1/exp(5s/15min) in fixed point. */
#define LOAD_FREQ (5 * HZ + 1)
#define EXP_1 1884
#define EXP_5 2014
#define EXP_15 2037

unsigned long avenrun[3];
EXPORT_SYMBOL(avenrun);

static unsigned long calc_load_update;

/* Return load * exp + active * (1 - exp), rounded up while the load rises. */
static unsigned long calc_load(unsigned long load, unsigned long exp, unsigned long active)
{
	unsigned long sum = load * exp + active * (FIXED_1 - exp);

	if (active >= load)
		sum += FIXED_1 - 1;
	return sum / FIXED_1;
}

/* Return x to the power of n, in units of FIXED_1. */
static unsigned long fixed_power_int(unsigned long x, unsigned long n)
{
	unsigned long result = FIXED_1;

	for (; n; n >>= 1) {
		if (n & 1)
			result = (result * x + FIXED_1 / 2) >> FSHIFT;
		x = (x * x + FIXED_1 / 2) >> FSHIFT;
	}
	return result;
}

static void calc_global_load(void)
{
	static const unsigned long exps[] = { EXP_1, EXP_5, EXP_15 };
	unsigned long periods, active;

	if (!calc_load_update)
		calc_load_update = jiffies + LOAD_FREQ;
	if (time_before(jiffies, calc_load_update))
		return;
	periods = (jiffies - calc_load_update) / LOAD_FREQ;
	/* The reading task itself does not count. */
	active = (nr_running() ? nr_running() - 1 : 0) * FIXED_1;
	for (int i = 0; i < 3; i++) {
		if (periods)
			avenrun[i] = calc_load(avenrun[i], fixed_power_int(exps[i], periods), 0);
		avenrun[i] = calc_load(avenrun[i], exps[i], active);
	}
	calc_load_update += (periods + 1) * LOAD_FREQ;
}

void get_avenrun(unsigned long *loads, unsigned long offset, int shift)
{
	calc_global_load();
	for (int i = 0; i < 3; i++)
		loads[i] = (avenrun[i] + offset) << shift;
}
