/* SPDX-License-Identifier: GPL-2.0-or-later */
/* uname(2): kernel/sys.c. */

#include <linux/errno.h>
#include <linux/linkage.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#include <asm/ptrace.h>

asmlinkage long __x64_sys_newuname(const struct pt_regs *regs)
{
	struct new_utsname copy;

	memcpy(&copy, utsname(), sizeof(copy));
	return copy_to_user((void __user *)regs->di, &copy, sizeof(copy)) ? -EFAULT : 0;
}
