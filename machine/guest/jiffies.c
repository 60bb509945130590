/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The count of ticks; jiffies is another name of it (vmlinux.lds). kernel/time/timer.c. */

#include <linux/export.h>
#include <linux/jiffies.h>

u64 jiffies_64 = INITIAL_JIFFIES;
EXPORT_SYMBOL(jiffies_64);
EXPORT_SYMBOL(jiffies);
