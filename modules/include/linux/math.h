/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_MATH_H
#define _LINUX_MATH_H

#include <linux/types.h>
#include <asm/div64.h>

#define __round_mask(x, y) ((typeof(x))((y) - 1))
#define round_up(x, y) ((((x) - 1) | __round_mask(x, y)) + 1)
#define round_down(x, y) ((x) & ~__round_mask(x, y))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define DIV_ROUND_UP_ULL(n, d) DIV_ROUND_UP((unsigned long long)(n), (d))
#define DIV_ROUND_DOWN_ULL(n, d) ((unsigned long long)(n) / (d))
#define roundup(x, y)                                   \
	({                                              \
		typeof(y) __y = (y);                    \
		(((x) + (__y - 1)) / __y) * __y;        \
	})
#define rounddown(x, y)                   \
	({                                \
		typeof(x) __x = (x);      \
		__x - (__x % (y));        \
	})
#define DIV_ROUND_CLOSEST(x, divisor)                                         \
	({                                                                    \
		typeof(x) __n = (x);                                          \
		typeof(divisor) __d = (divisor);                              \
		(((typeof(x))-1) > 0 || ((typeof(divisor))-1) > 0 ||          \
		 ((__n > 0) == (__d > 0))) ?                                  \
			((__n + (__d / 2)) / __d) :                           \
			((__n - (__d / 2)) / __d);                            \
	})
#define abs(x)                                  \
	({                                      \
		typeof(x) __v = (x);            \
		__v < 0 ? -__v : __v;           \
	})

#endif
