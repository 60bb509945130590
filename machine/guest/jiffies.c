/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tick counter: kernel/time/timer.c. jiffies is a second name for it (vmlinux.lds). */

#include <linux/export.h>
#include <linux/jiffies.h>

u64 jiffies_64 = INITIAL_JIFFIES;
EXPORT_SYMBOL(jiffies_64);
EXPORT_SYMBOL(jiffies);
