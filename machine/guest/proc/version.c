/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /proc/version: fs/proc/version.c. */

#include <linux/init.h>
#include <linux/printk.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/utsname.h>

#include "internal.h"

static int version_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, linux_proc_banner, utsname()->sysname, utsname()->release,
		   utsname()->version);
	return 0;
}

static int __init proc_version_init(void)
{
	pde_make_permanent(proc_create_single("version", 0, NULL, version_proc_show));
	return 0;
}
fs_initcall(proc_version_init);
