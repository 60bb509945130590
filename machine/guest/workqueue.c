/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The queues that are always there, kernel/workqueue.c. They have a name each and nothing else. */

#include <linux/export.h>
#include <linux/workqueue.h>

struct workqueue_struct {
	char name[24];
};

static struct workqueue_struct events = { "events" };
static struct workqueue_struct events_highpri = { "events_highpri" };
static struct workqueue_struct events_long = { "events_long" };
static struct workqueue_struct events_unbound = { "events_unbound" };

struct workqueue_struct *system_wq = &events;
EXPORT_SYMBOL(system_wq);
struct workqueue_struct *system_highpri_wq = &events_highpri;
EXPORT_SYMBOL_GPL(system_highpri_wq);
struct workqueue_struct *system_long_wq = &events_long;
EXPORT_SYMBOL_GPL(system_long_wq);
struct workqueue_struct *system_unbound_wq = &events_unbound;
EXPORT_SYMBOL_GPL(system_unbound_wq);
