/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of user programs. They are not in this machine: what a system call hands in or wants back
 * is in a buffer of the kernel, and an address in the lower half is nobody's.
 */

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/uaccess.h>

static bool access_ok(const void __user *ptr, unsigned long size)
{
	return (long)ptr < 0 && (long)(ptr + size) <= 0;
}

unsigned long _copy_to_user(void __user *to, const void *from, unsigned long n)
{
	if (!access_ok(to, n))
		return n;
	memcpy(to, from, n);
	return 0;
}
EXPORT_SYMBOL(_copy_to_user);

unsigned long _copy_from_user(void *to, const void __user *from, unsigned long n)
{
	if (!access_ok(from, n)) {
		memset(to, 0, n);
		return n;
	}
	memcpy(to, from, n);
	return 0;
}
EXPORT_SYMBOL(_copy_from_user);

/* The length of the string, count if it does not end before. */
long strncpy_from_user(char *dst, const char __user *src, long count)
{
	size_t len;

	if (count <= 0)
		return 0;
	if (!access_ok(src, 1))
		return -EFAULT;
	len = strnlen(src, count);
	memcpy(dst, src, len);
	if (len < count)
		dst[len] = '\0';
	return len;
}
EXPORT_SYMBOL(strncpy_from_user);

unsigned long clear_user(void __user *to, unsigned long n)
{
	if (!access_ok(to, n))
		return n;
	memset(to, 0, n);
	return 0;
}
EXPORT_SYMBOL(clear_user);
