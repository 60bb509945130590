// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch whose transition stalls.
 *
 * It replaces sleeper_nap() of sleeper.c. The thread of that module sleeps in the function, so its stack
 * is never free of it, and the transition stays at 1:
 *
 *	$ insmod sleeper.ko && insmod sleeper-patch.ko
 *	$ cat /sys/kernel/livepatch/sleeper_patch/transition
 *	1
 *
 * It ends when the thread leaves the function,
 *
 *	$ echo 1 > /sys/module/sleeper/parameters/wake
 *
 * or when the administrator declares that nothing bad will happen:
 *
 *	$ echo 1 > /sys/kernel/livepatch/sleeper_patch/force
 *
 * With asleep=1 the replacement sleeps as well, so that disabling the patch stalls in the same way.
 */
#include <linux/delay.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static bool asleep;
module_param(asleep, bool, 0644);
MODULE_PARM_DESC(asleep, "sleep in the replacement as long as this is set");

static noinline void patched_nap(void)
{
	while (asleep)
		msleep(100);
}

static struct klp_func funcs[] = {
	{ .old_name = "sleeper_nap", .new_func = patched_nap },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "sleeper", .funcs = funcs },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
