// SPDX-License-Identifier: GPL-2.0-or-later
/* The functions of units.c, with millimetres instead of centimetres. */
#include <linux/livepatch.h>
#include <linux/module.h>

#include "units.h"

static long new_store(long metres)
{
	units_new_call();
	units_pause();
	return metres * NEW_UNITS;
}

static long new_load(long length)
{
	units_new_call();
	units_pause();
	return length / NEW_UNITS;
}

static long new_measure(long metres)
{
	long length;

	units_new_call();
	units_pause();
	length = units_store(metres);
	units_pause();
	return length / NEW_UNITS;
}

static struct klp_func funcs[] = {
	{ .old_name = "units_store", .new_func = new_store },
	{ .old_name = "units_load", .new_func = new_load },
	{ .old_name = "units_measure", .new_func = new_measure },
	{ }
};

static struct klp_object objs[] = { { .name = "units", .funcs = funcs }, { } };
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
