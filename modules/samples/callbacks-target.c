// SPDX-License-Identifier: GPL-2.0-or-later
/* A module that does nothing but come and go, for callbacks-patch.c. */
#include <linux/module.h>

static int __init target_init(void)
{
	return 0;
}

static void __exit target_exit(void)
{
}

module_init(target_init);
module_exit(target_exit);
MODULE_LICENSE("GPL");
