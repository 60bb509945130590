/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output functions for show callbacks of sysfs, which write to a page: fs/sysfs/file.c. */

#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sysfs.h>

#include "bug_at.h"

int sysfs_emit(char *buf, const char *fmt, ...)
{
	va_list args;
	int len;

	if (WARN_AT(!buf || offset_in_page(buf), "fs/sysfs/file.c", 740, "invalid sysfs_emit: buf:%p\n", buf))
		return 0;
	va_start(args, fmt);
	len = vscnprintf(buf, PAGE_SIZE, fmt, args);
	va_end(args);
	return len;
}
EXPORT_SYMBOL_GPL(sysfs_emit);

int sysfs_emit_at(char *buf, int at, const char *fmt, ...)
{
	va_list args;
	int len;

	if (WARN_AT(!buf || offset_in_page(buf) || at < 0 || at >= PAGE_SIZE, "fs/sysfs/file.c", 768,
		 "invalid sysfs_emit_at: buf:%p at:%d\n", buf, at))
		return 0;
	va_start(args, fmt);
	len = vscnprintf(buf + at, PAGE_SIZE - at, fmt, args);
	va_end(args);
	return len;
}
EXPORT_SYMBOL_GPL(sysfs_emit_at);
