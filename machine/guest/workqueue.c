/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The system workqueues, which are created at boot: kernel/workqueue.c. */

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
