// SPDX-License-Identifier: GPL-2.0-or-later
/* Without a fault: it uses a per-CPU variable and a static key. It needs a kernel with both. */
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>

static DEFINE_PER_CPU(int, shown) = 41;
static DEFINE_STATIC_KEY_FALSE(key);

static int patched_show(struct seq_file *m, void *v)
{
	if (static_branch_unlikely(&key))
		seq_printf(m, "the key is on, %d\n", this_cpu_inc_return(shown));
	else
		seq_puts(m, "the key is off\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = patched_show },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };

static int __init patch_init(void)
{
	static_branch_enable(&key);
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
