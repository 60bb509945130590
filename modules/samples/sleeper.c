// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kernel thread that sleeps in sleeper_nap() until it is told to wake up.
 *
 * A patch of sleeper_nap() cannot finish while the thread is in there: see sleeper-patch.c.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>

static bool wake;
module_param(wake, bool, 0644);
MODULE_PARM_DESC(wake, "end the nap; naps are short as long as this is set");

static int naps;
module_param(naps, int, 0444);
MODULE_PARM_DESC(naps, "number of naps that have ended");

noinline void sleeper_nap(void);
noinline void sleeper_nap(void)
{
	while (!wake && !kthread_should_stop())
		msleep(100);
	naps++;
}

static int run(void *data)
{
	while (!kthread_should_stop()) {
		sleeper_nap();
		msleep(100);
	}
	return 0;
}

static struct task_struct *task;

static int __init sleeper_init(void)
{
	task = kthread_run(run, NULL, "sleeper");
	return PTR_ERR_OR_ZERO(task);
}

static void __exit sleeper_exit(void)
{
	kthread_stop(task);
}

module_init(sleeper_init);
module_exit(sleeper_exit);
MODULE_LICENSE("GPL");
