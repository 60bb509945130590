/* SPDX-License-Identifier: GPL-2.0-or-later */
/* kernel/printk/printk.c. The log itself is behind the service vprintk_emit(). */

#include <linux/bug.h>
#include <linux/dev_printk.h>
#include <linux/kernel.h>
#include <linux/printk.h>

#define LOGLEVEL_DEFAULT -1

int console_printk[4] = {
	CONSOLE_LOGLEVEL_DEFAULT,
	MESSAGE_LOGLEVEL_DEFAULT,
	CONSOLE_LOGLEVEL_MIN,
	CONSOLE_LOGLEVEL_DEFAULT,
};
EXPORT_SYMBOL_GPL(console_printk);

int dmesg_restrict;

int vprintk(const char *fmt, va_list args)
{
	return vprintk_emit(0, LOGLEVEL_DEFAULT, NULL, fmt, args);
}
EXPORT_SYMBOL(vprintk);

int _printk(const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vprintk(fmt, args);
	va_end(args);
	return n;
}
EXPORT_SYMBOL(_printk);

void dump_stack_lvl(const char *log_lvl)
{
	dump_stack();
}
EXPORT_SYMBOL(dump_stack_lvl);

/* Print the text of a WARN(). The ud2 that follows reports its place. */
void __warn_printk(const char *fmt, ...)
{
	va_list args;

	printk(KERN_WARNING CUT_HERE);
	va_start(args, fmt);
	vprintk(fmt, args);
	va_end(args);
}
EXPORT_SYMBOL(__warn_printk);
