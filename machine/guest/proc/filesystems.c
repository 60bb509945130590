/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /proc/filesystems: fs/filesystems.c. */

#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

/* The file systems of this machine. None of them is on a device. */
static const char *const file_systems[] = {
	"sysfs", "proc", "devtmpfs", "debugfs", "tracefs",
};

static int filesystems_proc_show(struct seq_file *m, void *v)
{
	for (int i = 0; i < ARRAY_SIZE(file_systems); i++)
		seq_printf(m, "%s\t%s\n", "nodev", file_systems[i]);
	return 0;
}

static int __init proc_filesystems_init(void)
{
	proc_create_single("filesystems", 0, NULL, filesystems_proc_show);
	return 0;
}
fs_initcall(proc_filesystems_init);
