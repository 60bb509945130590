/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_UACCESS_H
#define _LINUX_UACCESS_H

#include <linux/compiler.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/sched.h>

/* Both return the number of bytes that could not be copied. */
extern unsigned long __must_check _copy_to_user(void __user *to, const void *from, unsigned long n);
extern unsigned long __must_check _copy_from_user(void *to, const void __user *from,
						  unsigned long n);
extern long strncpy_from_user(char *dst, const char __user *src, long count);
extern unsigned long clear_user(void __user *to, unsigned long n);
extern long copy_from_kernel_nofault(void *dst, const void *src, size_t size);
extern long copy_to_kernel_nofault(void *dst, const void *src, size_t size);

#define copy_to_user(to, from, n) _copy_to_user(to, from, n)
#define copy_from_user(to, from, n) _copy_from_user(to, from, n)
#define put_user(x, ptr)                                                   \
	({                                                                 \
		typeof(*(ptr)) __pu_val = (x);                             \
		_copy_to_user(ptr, &__pu_val, sizeof(__pu_val)) ? -EFAULT : 0; \
	})
#define get_user(x, ptr)                                                        \
	({                                                                      \
		typeof(*(ptr)) __gu_val = 0;                                    \
		int __gu_err = _copy_from_user(&__gu_val, ptr, sizeof(__gu_val)) ? -EFAULT : 0; \
		(x) = __gu_val;                                                 \
		__gu_err;                                                       \
	})

#endif
