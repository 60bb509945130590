// SPDX-License-Identifier: GPL-2.0-or-later
/* A module with a user, whose holders directory has a link. */
#include <linux/module.h>

int conform_base_value(void);
int conform_base_value(void)
{
	return 1;
}
EXPORT_SYMBOL_GPL(conform_base_value);

MODULE_LICENSE("GPL");
