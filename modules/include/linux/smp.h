/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SMP_H
#define _LINUX_SMP_H

#include <linux/cpumask.h>
#include <linux/preempt.h>

#define raw_smp_processor_id() 0
#define smp_processor_id() 0
#define get_cpu() ({ preempt_disable(); 0; })
#define put_cpu() preempt_enable()

typedef void (*smp_call_func_t)(void *info);

static inline int on_each_cpu(smp_call_func_t func, void *info, int wait)
{
	func(info);
	return 0;
}

#endif
