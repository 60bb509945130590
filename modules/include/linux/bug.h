/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_BUG_H
#define _LINUX_BUG_H

#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/panic.h>
#include <linux/printk.h>
#include <asm/bug.h>

#define CUT_HERE "------------[ cut here ]------------\n"

#define BUGFLAG_WARNING (1 << 0)
#define BUGFLAG_ONCE (1 << 1)
#define BUGFLAG_DONE (1 << 2)
#define BUGFLAG_NO_CUT_HERE (1 << 3)
#define BUGFLAG_TAINT(taint) ((taint) << 8)
#define BUG_GET_TAINT(bug) ((bug)->flags >> 8)

struct bug_entry {
	signed int bug_addr_disp;
	signed int file_disp;
	unsigned short line;
	unsigned short flags;
};

enum bug_trap_type {
	BUG_TRAP_TYPE_NONE = 0,
	BUG_TRAP_TYPE_WARN = 1,
	BUG_TRAP_TYPE_BUG = 2,
};

extern __printf(1, 2) void __warn_printk(const char *fmt, ...);

#define BUG_ON(condition)                \
	do {                             \
		if (unlikely(condition)) \
			BUG();           \
	} while (0)

#define __WARN() __WARN_FLAGS(BUGFLAG_TAINT(TAINT_WARN))
#define __WARN_printf(taint, arg...)                                        \
	do {                                                                \
		__warn_printk(arg);                                         \
		__WARN_FLAGS(BUGFLAG_NO_CUT_HERE | BUGFLAG_TAINT(taint));   \
	} while (0)

#define WARN_ON(condition)                       \
	({                                       \
		int __ret_warn_on = !!(condition); \
		if (unlikely(__ret_warn_on))     \
			__WARN();                \
		unlikely(__ret_warn_on);         \
	})
#define WARN_TAINT(condition, taint, format...)          \
	({                                               \
		int __ret_warn_on = !!(condition);       \
		if (unlikely(__ret_warn_on))             \
			__WARN_printf(taint, format);    \
		unlikely(__ret_warn_on);                 \
	})
#define WARN(condition, format...) WARN_TAINT(condition, TAINT_WARN, format)
/* The entry in the bug table records that the warning was printed. */
#define WARN_ON_ONCE(condition)                                                          \
	({                                                                               \
		int __ret_warn_on = !!(condition);                                       \
		if (unlikely(__ret_warn_on))                                             \
			__WARN_FLAGS(BUGFLAG_ONCE | BUGFLAG_TAINT(TAINT_WARN));          \
		unlikely(__ret_warn_on);                                                 \
	})
#define WARN_ONCE(condition, format...) DO_ONCE_LITE_IF(condition, WARN, 1, format)
#define WARN_TAINT_ONCE(condition, taint, format...) \
	DO_ONCE_LITE_IF(condition, WARN_TAINT, 1, taint, format)

#endif
