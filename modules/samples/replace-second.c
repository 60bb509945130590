// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The second version of a cumulative patch: it changes /proc/cmdline alone.
 *
 * With .replace the patch supersedes all others, in one transition. Functions that they changed and this
 * one does not go back to the original, here that of /proc/version. The superseded patch disappears from
 * /sys/kernel/livepatch, and its module can be unloaded.
 *
 *	$ insmod replace-first.ko
 *	$ cat /proc/cmdline /proc/version
 *	command line of the first patch
 *	version of the first patch
 *	$ insmod replace-second.ko
 *	$ cat /proc/cmdline /proc/version
 *	command line of the second patch
 *	<the version of the kernel>
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int patched_cmdline_show(struct seq_file *m, void *v)
{
	seq_puts(m, "command line of the second patch\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = patched_cmdline_show },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs, .replace = true };

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
