// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A live patch of one function of the kernel.
 *
 * It replaces cmdline_proc_show(), the function behind /proc/cmdline, as
 * samples/livepatch/livepatch-sample.c of the kernel does:
 *
 *	$ cat /proc/cmdline
 *	<the command line>
 *	$ insmod livepatch-sample.ko
 *	$ cat /proc/cmdline
 *	this has been live patched
 *	$ echo 0 > /sys/kernel/livepatch/livepatch_sample/enabled
 *	$ rmmod livepatch_sample
 */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

/* A replacement takes the arguments and returns the type of the old function. */
static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_puts(m, "this has been live patched\n");
	return 0;
}

/* Each list ends with an empty element. */
static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = livepatch_cmdline_proc_show },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs }, /* no name: vmlinux */
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };

/* Loading the module enables the patch. */
static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

/* There is nothing to do here, but a module without an exit function cannot be unloaded. */
static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y"); /* klp_enable_patch() refuses a module without this */
