// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A patch for vmlinux, klp_target and klp_later, each with all callbacks, which log their calls. For one
 * object, "fail" makes pre_patch fail, and "oops" is the name of a callback that dereferences NULL.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/string.h>

static char *object = "";
module_param(object, charp, 0644);
static char *oops = "";
module_param(oops, charp, 0644);
static int fail;
module_param(fail, int, 0644);

static const char *name_of(struct klp_object *obj)
{
	return obj->name ? obj->name : "vmlinux";
}

static bool is_meant(struct klp_object *obj)
{
	return !strcmp(object, name_of(obj));
}

static noinline void called(const char *callback, struct klp_object *obj)
{
	pr_info("%s: %s\n", callback, name_of(obj));
	if (is_meant(obj) && !strcmp(oops, callback))
		*(volatile int *)0 = 1;
}

static int pre_patch(struct klp_object *obj)
{
	called("pre_patch", obj);
	return is_meant(obj) ? fail : 0;
}

static void post_patch(struct klp_object *obj)
{
	called("post_patch", obj);
}

static void pre_unpatch(struct klp_object *obj)
{
	called("pre_unpatch", obj);
}

static void post_unpatch(struct klp_object *obj)
{
	called("post_unpatch", obj);
}

#define CALLBACKS { pre_patch, post_patch, pre_unpatch, post_unpatch }

static noinline int new_version(void)
{
	barrier();
	return 11;
}

static struct klp_func no_funcs[] = { { } };
static struct klp_func funcs[] = { { .old_name = "one", .new_func = new_version }, { } };

static struct klp_object objs[] = {
	{ .funcs = no_funcs, .callbacks = CALLBACKS },
	{ .name = "klp_target", .funcs = funcs, .callbacks = CALLBACKS },
	{ .name = "klp_later", .funcs = no_funcs, .callbacks = CALLBACKS },
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
