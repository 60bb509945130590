/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The macros of linux/bug.h with the file and the line that a warning has in Linux 6.1. */
#ifndef _BUG_AT_H
#define _BUG_AT_H

#include <linux/bug.h>
#include <linux/once_lite.h>

#define __WARN_AT(file, line, flags) \
	_BUG_FLAGS_AT(file, line, ASM_UD2, BUGFLAG_WARNING | BUGFLAG_TAINT(TAINT_WARN) | (flags))

#define WARN_ON_AT(file, line, condition)            \
	({                                           \
		int __ret_warn_on = !!(condition);   \
		if (unlikely(__ret_warn_on))         \
			__WARN_AT(file, line, 0);    \
		unlikely(__ret_warn_on);             \
	})
#define WARN_ON_ONCE_AT(file, line, condition)                  \
	({                                                      \
		int __ret_warn_on = !!(condition);              \
		if (unlikely(__ret_warn_on))                    \
			__WARN_AT(file, line, BUGFLAG_ONCE);    \
		unlikely(__ret_warn_on);                        \
	})
#define WARN_AT(condition, file, line, format...)                       \
	({                                                              \
		int __ret_warn_on = !!(condition);                      \
		if (unlikely(__ret_warn_on)) {                          \
			__warn_printk(format);                          \
			__WARN_AT(file, line, BUGFLAG_NO_CUT_HERE);     \
		}                                                       \
		unlikely(__ret_warn_on);                                \
	})
#define WARN_ONCE_AT(condition, file, line, format...) \
	DO_ONCE_LITE_IF(condition, WARN_AT, 1, file, line, format)
#define BUG_ON_AT(file, line, condition)                        \
	do {                                                    \
		if (unlikely(condition)) {                      \
			_BUG_FLAGS_AT(file, line, ASM_UD2, 0);  \
			__builtin_unreachable();                \
		}                                               \
	} while (0)

#endif
