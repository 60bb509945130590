// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A module with a file in /proc, to be patched by greeting-patch.c.
 *
 *	$ insmod greeting.ko
 *	$ cat /proc/greeting
 *	hello, world
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

/* Static functions can be patched too, if the compiler has not inlined them. */
static noinline int greeting_show(struct seq_file *m, void *v)
{
	seq_puts(m, "hello, world\n");
	return 0;
}

static int __init greeting_init(void)
{
	return proc_create_single("greeting", 0444, NULL, greeting_show) ? 0 : -ENOMEM;
}

static void __exit greeting_exit(void)
{
	remove_proc_entry("greeting", NULL);
}

module_init(greeting_init);
module_exit(greeting_exit);
MODULE_LICENSE("GPL");
