// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The target of patches: functions that return their version, and functions that sleep. The tests
 * call them.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

static bool wake;
module_param(wake, bool, 0644);
static int wakeups;
module_param(wakeups, int, 0444);

#define VERSION(name, value) \
noinline int name(void); \
noinline int name(void) \
{ \
	barrier(); \
	return value; \
}

VERSION(one, 1)
VERSION(two, 2)
VERSION(three, 3)
VERSION(four, 4)

/* The version of one() before and after a sleep in the middle of two functions of the patched set. */
noinline int nap(void);
noinline int nap(void)
{
	int version = one();

	while (!wake)
		msleep(100);
	return version * 1000 + one();
}

noinline int wait(void);
noinline int wait(void)
{
	while (!wake) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (signal_pending(current)) {
			__set_current_state(TASK_RUNNING);
			return -EINTR;
		}
		schedule();
		wakeups++;
	}
	return 0;
}

notrace noinline int siteless(void);
notrace noinline int siteless(void)
{
	barrier();
	return 5;
}

MODULE_DESCRIPTION("The module that is patched");
MODULE_LICENSE("GPL");
