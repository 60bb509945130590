/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Access to user memory, the lower half of the address space, any part of which may be unmapped. */

#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#define TASK_SIZE_MAX 0x7ffffffff000UL

/* An entry of the exception table: a fault at "from" continues at "to". Type 3: EX_TYPE_UACCESS. */
#define EXTABLE_UACCESS(from, to)                      \
	".pushsection __ex_table, \"a\"\n"             \
	".balign 4\n"                                  \
	".long " #from " - ., " #to " - ., 3\n"        \
	".popsection\n"

static bool access_ok(const void __user *ptr, unsigned long size)
{
	return size <= TASK_SIZE_MAX && (unsigned long)ptr <= TASK_SIZE_MAX - size;
}

/* Return the number of bytes that could not be copied. */
static unsigned long copy_bytes(void *to, const void *from, unsigned long n)
{
	asm volatile("1:	rep movsb\n"
		     "2:\n"
		     EXTABLE_UACCESS(1b, 2b)
		     : "+D"(to), "+S"(from), "+c"(n)
		     :
		     : "memory");
	return n;
}

unsigned long _copy_to_user(void __user *to, const void *from, unsigned long n)
{
	return access_ok(to, n) ? copy_bytes(to, from, n) : n;
}
EXPORT_SYMBOL(_copy_to_user);

unsigned long _copy_from_user(void *to, const void __user *from, unsigned long n)
{
	unsigned long left = access_ok(from, n) ? copy_bytes(to, from, n) : n;

	if (left)
		memset(to + n - left, 0, left);
	return left;
}
EXPORT_SYMBOL(_copy_from_user);

/* Return the length of the string, or count if it is longer. */
long strncpy_from_user(char *dst, const char __user *src, long count)
{
	long len;

	for (len = 0; len < count; len++) {
		if (!access_ok(src + len, 1) || copy_bytes(dst + len, src + len, 1))
			return -EFAULT;
		if (!dst[len])
			break;
	}
	return len;
}
EXPORT_SYMBOL(strncpy_from_user);

unsigned long clear_user(void __user *to, unsigned long n)
{
	if (!access_ok(to, n))
		return n;
	asm volatile("1:	rep stosb\n"
		     "2:\n"
		     EXTABLE_UACCESS(1b, 2b)
		     : "+D"(to), "+c"(n)
		     : "a"(0)
		     : "memory");
	return n;
}
EXPORT_SYMBOL(clear_user);
