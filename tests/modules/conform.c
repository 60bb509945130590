// SPDX-License-Identifier: GPL-2.0-or-later
/* A file of each kind that the sysfs of every host has, too. */
#include <linux/module.h>

int conform_base_value(void);

static int constant = 1;
module_param(constant, int, 0444);
static bool flag;
module_param(flag, bool, 0644);
static ulong number;
module_param(number, ulong, 0200);

static int __init conform_init(void)
{
	return conform_base_value() == 1 ? 0 : -EINVAL;
}

static void __exit conform_exit(void)
{
}

module_init(conform_init);
module_exit(conform_exit);
MODULE_LICENSE("GPL");
