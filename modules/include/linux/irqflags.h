/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_IRQFLAGS_H
#define _LINUX_IRQFLAGS_H

#include <linux/typecheck.h>
#include <asm/irqflags.h>

#define local_irq_disable() arch_local_irq_disable()
#define local_irq_enable() arch_local_irq_enable()
#define local_irq_save(flags)                        \
	do {                                         \
		typecheck(unsigned long, flags);     \
		flags = arch_local_save_flags();     \
		arch_local_irq_disable();            \
	} while (0)
#define local_irq_restore(flags)                     \
	do {                                         \
		typecheck(unsigned long, flags);     \
		if ((flags) & X86_EFLAGS_IF)         \
			arch_local_irq_enable();     \
	} while (0)
#define local_save_flags(flags) ((flags) = arch_local_save_flags())
#define irqs_disabled_flags(flags) (!((flags) & X86_EFLAGS_IF))
#define irqs_disabled() irqs_disabled_flags(arch_local_save_flags())

#endif
