// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch of a module.
 *
 * The object has the module's name. The patch may be loaded before the module is: the kernel then
 * patches the module as it comes, before its init function runs.
 *
 *	$ insmod greeting-patch.ko
 *	$ insmod greeting.ko
 *	$ cat /proc/greeting
 *	hello, patched world
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int patched_show(struct seq_file *m, void *v)
{
	seq_puts(m, "hello, patched world\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "greeting_show", .new_func = patched_show },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "greeting", .funcs = funcs },
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
