/* SPDX-License-Identifier: GPL-2.0-or-later */
/* uname(2): kernel/sys.c. */

#include <linux/errno.h>
#include <linux/linkage.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>

asmlinkage long sys_newuname(struct new_utsname __user *name)
{
	struct new_utsname copy;

	memcpy(&copy, utsname(), sizeof(copy));
	return copy_to_user(name, &copy, sizeof(copy)) ? -EFAULT : 0;
}
