// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A patch with the register and enable API. A write to the parameter "call" calls one of its functions;
 * the write fails with the error of the call.
 *
 * OBJECT and FUNCTION are patched with a function that returns VERSION. PATCH, FUNC and OBJ are further
 * members of the structs.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

#ifndef PATCH
#define PATCH
#endif
#ifndef FUNC
#define FUNC
#endif
#ifndef OBJ
#define OBJ
#endif
#ifndef HEAD
#define HEAD
#endif
#ifndef RESULT
#define RESULT VERSION
#endif

HEAD

static noinline int replacement(void)
{
	barrier();
	return RESULT;
}

static struct klp_func funcs[] = {
	{ .old_name = FUNCTION, .new_func = replacement, FUNC },
	{ }
};
static struct klp_object objs[] = { { .name = OBJECT, .funcs = funcs, OBJ }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs, PATCH };

static int set_call(const char *text, const struct kernel_param *kp)
{
	if (sysfs_streq(text, "register"))
		return klp_register_patch(&patch);
	if (sysfs_streq(text, "enable"))
		return klp_enable_patch(&patch);
	if (sysfs_streq(text, "disable"))
		return klp_disable_patch(&patch);
	if (sysfs_streq(text, "unregister"))
		return klp_unregister_patch(&patch);
	return -EINVAL;
}

static const struct kernel_param_ops call_ops = { .set = set_call };
module_param_cb(call, &call_ops, NULL, 0200);

static int __init patch_init(void)
{
	return 0;
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
