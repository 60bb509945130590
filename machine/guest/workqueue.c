/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The queues that are always there, kernel/workqueue.c. They are made at boot. */

#include <linux/export.h>
#include <linux/workqueue.h>

struct workqueue_struct *system_wq;
EXPORT_SYMBOL(system_wq);
struct workqueue_struct *system_highpri_wq;
EXPORT_SYMBOL_GPL(system_highpri_wq);
struct workqueue_struct *system_long_wq;
EXPORT_SYMBOL_GPL(system_long_wq);
struct workqueue_struct *system_unbound_wq;
EXPORT_SYMBOL_GPL(system_unbound_wq);
