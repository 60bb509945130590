// SPDX-License-Identifier: GPL-2.0-or-later
/* A patch of caller_version() in caller.c. */
#include <linux/livepatch.h>
#include <linux/module.h>

static noinline int patched_version(unsigned long i)
{
	barrier();
	return 2;
}

static struct klp_func funcs[] = {
	{ .old_name = "caller_version", .new_func = patched_version },
	{ }
};

static struct klp_object objs[] = { { .name = "caller", .funcs = funcs }, { } };
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
