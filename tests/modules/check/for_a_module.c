// SPDX-License-Identifier: GPL-2.0-or-later
/* A patch of the module klp_answer. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static int new_answer(void)
{
	return 2;
}

static struct klp_func funcs[] = {
	{ .old_name = "answer", .new_func = new_answer },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "klp_answer", .funcs = funcs },
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
