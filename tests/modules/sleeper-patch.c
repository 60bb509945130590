// SPDX-License-Identifier: GPL-2.0-or-later
/* A patch of sleeper_nap() in sleeper.c, which itself sleeps as long as "asleep" is set. */
#include <linux/delay.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static bool asleep;
module_param(asleep, bool, 0644);

static noinline void patched_nap(void)
{
	while (asleep)
		msleep(100);
}

static struct klp_func funcs[] = {
	{ .old_name = "sleeper_nap", .new_func = patched_nap },
	{ }
};

static struct klp_object objs[] = { { .name = "sleeper", .funcs = funcs }, { } };
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
