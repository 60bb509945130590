// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tasks that call functions which must agree on the unit of a length. The module finds torn calls by the
 * values that the functions return:
 *
 *   kind 0, nested: units_measure() calls units_store(), and must know the unit of its result
 *   kind 1, sequential: a task stores a length and loads it again, in one stay in the kernel
 *   kind 2, across: every other task stores lengths, and the others load them; no task must call an old
 *           function after any task has called a new one
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

#include "units.h"

enum { NESTED, SEQUENTIAL, ACROSS };
/* STEPPED: a pause lasts until the driver wakes the task; so the driver chooses the order of all events. */
enum { SHORT, LONG, NEVER, STEPPED };
#define MOST_TASKS 16
#define SLOTS 64

static int kind;
module_param(kind, int, 0444);
static int load;
module_param(load, int, 0444);
static int tasks = 4;
module_param(tasks, int, 0444);
static ulong seed = 1;
module_param(seed, ulong, 0444);

static ulong calls, torn, stale;
module_param(calls, ulong, 0444);
module_param(torn, ulong, 0444);
/* Lengths that one version stored and the other loaded: work in flight. */
module_param(stale, ulong, 0444);
/* Whether an old call after the first new one is torn: true while the patch is enabled, not while it is disabled. */
static bool forward;
module_param(forward, bool, 0644);
static bool let_go;
module_param(let_go, bool, 0644);

static ulong now, first_new;
static struct task_struct *workers[MOST_TASKS + 1], *holdout;
static long slots[SLOTS];
static unsigned int stored, loaded;

static ulong any(ulong least, ulong most)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return least + seed % (most - least);
}

static noinline void sleep_or_step(ulong least, ulong most)
{
	if (load == STEPPED) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	} else {
		ulong us = any(least, most);

		usleep_range(us, us);
	}
}

void units_pause(void)
{
	if (current == holdout)
		while (!READ_ONCE(let_go))
			msleep(50);
	else if (load == LONG)
		sleep_or_step(200000, 1500000);
	else
		sleep_or_step(500, 3000);
}
EXPORT_SYMBOL(units_pause);

void units_new_call(void)
{
	if (!first_new)
		first_new = ++now;
}
EXPORT_SYMBOL(units_new_call);

noinline long units_store(long metres)
{
	units_pause();
	return metres * OLD_UNITS;
}
EXPORT_SYMBOL(units_store);

noinline long units_load(long length)
{
	units_pause();
	return length / OLD_UNITS;
}

noinline long units_measure(long metres)
{
	long length;

	units_pause();
	length = units_store(metres);
	units_pause();
	return length / OLD_UNITS;
}

static void is_torn(const char *what, long length)
{
	if (torn++ < 10)
		pr_info("torn: %s, %ld m are %ld m\n", what, (long)METRES, length);
}

static void nested(void)
{
	long metres = units_measure(METRES);

	if (metres != METRES)
		is_torn("nested", metres);
}

static void sequential(void)
{
	long length = units_store(METRES), metres;

	sleep_or_step(500, 3000);
	metres = units_load(length);
	if (metres != METRES)
		is_torn("sequential", metres);
}

/* A call that began at the given time was a call of an old function. */
static void was_old(ulong began)
{
	if (forward && first_new && first_new < began && torn++ < 10)
		pr_info("torn: across, an old call at %lu, the first new one at %lu\n", began, first_new);
}

static void store_one(void)
{
	ulong began = ++now;
	long length = units_store(METRES);

	if (length == METRES * OLD_UNITS)
		was_old(began);
	slots[stored++ % SLOTS] = length;
}

static void load_one(void)
{
	bool is_stored = loaded != stored;
	long length = is_stored ? slots[loaded++ % SLOTS] : METRES * OLD_UNITS, metres;
	ulong began = ++now;

	metres = units_load(length);
	if (metres == length / OLD_UNITS)
		was_old(began);
	if (is_stored && metres != METRES)
		stale++;
}

static noinline void job(long me)
{
	calls++;
	switch (kind) {
	case NESTED:
		nested();
		break;
	case SEQUENTIAL:
		sequential();
		break;
	default:
		if (me % 2)
			load_one();
		else
			store_one();
		sleep_or_step(500, 3000);
		if (me % 2)
			load_one();
		else
			store_one();
	}
}

static int work(void *me)
{
	while (!kthread_should_stop()) {
		if (load == STEPPED) {
			set_current_state(TASK_UNINTERRUPTIBLE);
			schedule();
			if (kthread_should_stop())
				break;
		} else {
			ulong us = any(1000, load == LONG ? 2000000 : 8000);

			usleep_range(us, us);
		}
		job((long)me);
	}
	return 0;
}

static int __init units_init(void)
{
	long i;

	for (i = 0; i < min(tasks, MOST_TASKS); i++)
		workers[i] = kthread_run(work, (void *)i, "units/%ld", i);
	if (load == NEVER) {
		holdout = kthread_create(work, NULL, "units/holdout");
		workers[i] = holdout;
		wake_up_process(holdout);
	}
	return 0;
}

static void __exit units_exit(void)
{
	int i;

	let_go = true;
	for (i = 0; i <= MOST_TASKS; i++)
		if (workers[i])
			kthread_stop(workers[i]);
}

module_init(units_init);
module_exit(units_exit);
MODULE_DESCRIPTION("Functions that must agree, and tasks that call them");
MODULE_LICENSE("GPL");
