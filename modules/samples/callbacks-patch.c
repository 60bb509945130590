// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch with callbacks, which log when they are called.
 *
 * The kernel calls pre_patch and post_patch of an object around the transition that patches it, and
 * pre_unpatch and post_unpatch around the one that reverts it. For a module that is loaded or unloaded
 * while the patch is enabled it calls them at that time. An object may have callbacks and no functions.
 *
 *	$ insmod callbacks-patch.ko
 *	$ insmod callbacks-target.ko
 *	$ dmesg
 *
 * pre_patch may refuse. With refuse=vmlinux the patch is not loaded, and with refuse=callbacks_target
 * the module is not:
 *
 *	$ insmod callbacks-patch.ko refuse=vmlinux
 *	insmod: ERROR: could not insert module callbacks-patch.ko: Device or resource busy
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/string.h>

static char *refuse = "";
module_param(refuse, charp, 0644);
MODULE_PARM_DESC(refuse, "the object whose pre_patch callback fails");

static const char *object_name(struct klp_object *obj)
{
	return obj->name ? obj->name : "vmlinux";
}

static int pre_patch(struct klp_object *obj)
{
	pr_info("pre_patch of %s\n", object_name(obj));
	return strcmp(refuse, object_name(obj)) ? 0 : -EBUSY;
}

static void post_patch(struct klp_object *obj)
{
	pr_info("post_patch of %s\n", object_name(obj));
}

static void pre_unpatch(struct klp_object *obj)
{
	pr_info("pre_unpatch of %s\n", object_name(obj));
}

static void post_unpatch(struct klp_object *obj)
{
	pr_info("post_unpatch of %s\n", object_name(obj));
}

#define CALLBACKS \
	{ \
		.pre_patch = pre_patch, \
		.post_patch = post_patch, \
		.pre_unpatch = pre_unpatch, \
		.post_unpatch = post_unpatch, \
	}

static struct klp_func no_funcs[] = {
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = no_funcs, .callbacks = CALLBACKS },
	{ .name = "callbacks_target", .funcs = no_funcs, .callbacks = CALLBACKS },
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
