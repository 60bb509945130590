/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The types of the kernel. Only this file is compiled with type information, as that of several
 * files cannot be merged. So it includes all headers that define types.
 */

#include <linux/completion.h>
#include <linux/dev_printk.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/proc_fs.h>
#include <linux/ratelimit.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/sysinfo.h>
#include <linux/time.h>
#include <linux/timer.h>
#include <linux/uio.h>
#include <linux/utsname.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/ptrace.h>

#include "livepatch.h"
#include "refcount.h"
