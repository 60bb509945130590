// SPDX-License-Identifier: GPL-2.0-or-later
/* A patch of bench_target: the new function does the same as the old one. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static noinline unsigned long bench_new_function(unsigned long i)
{
	barrier();
	return i + 1;
}

static struct klp_func funcs[] = {
	{
		.old_name = "bench_target_function",
		.new_func = bench_new_function,
	}, { }
};

static struct klp_object objs[] = {
	{
		.name = "bench_target",
		.funcs = funcs,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int __init bench_patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit bench_patch_exit(void)
{
}

module_init(bench_patch_init);
module_exit(bench_patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
