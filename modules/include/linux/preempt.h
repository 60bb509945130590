/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_PREEMPT_H
#define _LINUX_PREEMPT_H

#include <linux/linkage.h>
#include <linux/types.h>
#include <asm/preempt.h>

#define PREEMPT_BITS 8
#define SOFTIRQ_BITS 8
#define HARDIRQ_BITS 4
#define NMI_BITS 4

#define PREEMPT_SHIFT 0
#define SOFTIRQ_SHIFT (PREEMPT_SHIFT + PREEMPT_BITS)
#define HARDIRQ_SHIFT (SOFTIRQ_SHIFT + SOFTIRQ_BITS)
#define NMI_SHIFT (HARDIRQ_SHIFT + HARDIRQ_BITS)

#define __IRQ_MASK(x) ((1UL << (x)) - 1)
#define PREEMPT_MASK (__IRQ_MASK(PREEMPT_BITS) << PREEMPT_SHIFT)
#define SOFTIRQ_MASK (__IRQ_MASK(SOFTIRQ_BITS) << SOFTIRQ_SHIFT)
#define HARDIRQ_MASK (__IRQ_MASK(HARDIRQ_BITS) << HARDIRQ_SHIFT)
#define NMI_MASK (__IRQ_MASK(NMI_BITS) << NMI_SHIFT)

#define PREEMPT_OFFSET (1UL << PREEMPT_SHIFT)
#define SOFTIRQ_OFFSET (1UL << SOFTIRQ_SHIFT)
#define HARDIRQ_OFFSET (1UL << HARDIRQ_SHIFT)
#define NMI_OFFSET (1UL << NMI_SHIFT)
#define SOFTIRQ_DISABLE_OFFSET (2 * SOFTIRQ_OFFSET)

#define PREEMPT_ENABLED (0 + PREEMPT_NEED_RESCHED)
#define INIT_PREEMPT_COUNT PREEMPT_ENABLED

#define nmi_count() (preempt_count() & NMI_MASK)
#define hardirq_count() (preempt_count() & HARDIRQ_MASK)
#define softirq_count() (preempt_count() & SOFTIRQ_MASK)
#define irq_count() (nmi_count() | hardirq_count() | softirq_count())
#define in_nmi() (nmi_count())
#define in_hardirq() (hardirq_count())
#define in_serving_softirq() (softirq_count() & SOFTIRQ_OFFSET)
#define in_task() (!(in_nmi() | in_hardirq() | in_serving_softirq()))
#define in_irq() (hardirq_count())
#define in_softirq() (softirq_count())
#define in_interrupt() (irq_count())
#define in_atomic() (preempt_count() != 0)
#define preemptible() (preempt_count() == 0 && !irqs_disabled())

#define preempt_disable() __preempt_count_add(1)
#define preempt_enable()                                       \
	do {                                                   \
		if (unlikely(__preempt_count_dec_and_test()))  \
			preempt_schedule();                    \
	} while (0)
#define preempt_enable_no_resched() __preempt_count_sub(1)
#define preempt_check_resched()                \
	do {                                   \
		if (should_resched(0))         \
			preempt_schedule();    \
	} while (0)
#define preempt_disable_notrace() __preempt_count_add(1)
#define preempt_enable_no_resched_notrace() __preempt_count_sub(1)
#define preempt_enable_notrace()                               \
	do {                                                   \
		if (unlikely(__preempt_count_dec_and_test()))  \
			preempt_schedule_notrace();            \
	} while (0)
#define migrate_disable() preempt_disable()
#define migrate_enable() preempt_enable()

#endif
