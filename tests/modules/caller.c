// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kthread that calls a function in a loop, "calls" times, and counts the return values. The patched
 * version of the function, in caller-patch.c, returns 2.
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

static unsigned long calls = 1000;
module_param(calls, ulong, 0444);
static unsigned long old_calls, new_calls, other_calls;
module_param(old_calls, ulong, 0444);
module_param(new_calls, ulong, 0444);
module_param(other_calls, ulong, 0444);
static bool done;
module_param(done, bool, 0444);

noinline int caller_version(unsigned long i);
noinline int caller_version(unsigned long i)
{
	barrier();
	return 1;
}

static int run(void *data)
{
	unsigned long i;

	for (i = 0; i < calls; i++) {
		switch (caller_version(i)) {
		case 1:
			old_calls++;
			break;
		case 2:
			new_calls++;
			break;
		default:
			other_calls++;
		}
		if (i % 1024 == 0) {
			if (kthread_should_stop())
				break;
			cond_resched();
		}
	}
	done = true;
	while (!kthread_should_stop())
		msleep(10);
	return 0;
}

static struct task_struct *task;

static int __init caller_init(void)
{
	task = kthread_run(run, NULL, "caller");
	return PTR_ERR_OR_ZERO(task);
}

static void __exit caller_exit(void)
{
	kthread_stop(task);
}

module_init(caller_init);
module_exit(caller_exit);
MODULE_LICENSE("GPL");
