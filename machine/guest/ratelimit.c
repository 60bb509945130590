/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits for the rate of messages: lib/ratelimit.c. */

#include <linux/export.h>
#include <linux/jiffies.h>
#include <linux/printk.h>
#include <linux/ratelimit.h>

/* Return 1 if the caller may print. func is named in the report of suppressed messages. */
int ___ratelimit(struct ratelimit_state *rs, const char *func)
{
	if (!rs->interval)
		return 1;
	if (!rs->begin)
		rs->begin = jiffies;
	if (time_is_before_jiffies(rs->begin + rs->interval)) {
		if (rs->missed) {
			printk(KERN_WARNING "%s: %d callbacks suppressed\n", func, rs->missed);
			rs->missed = 0;
		}
		rs->begin = jiffies;
		rs->printed = 0;
	}
	if (rs->burst > rs->printed) {
		rs->printed++;
		return 1;
	}
	rs->missed++;
	return 0;
}
EXPORT_SYMBOL(___ratelimit);
