/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_IRQFLAGS_H
#define _ASM_IRQFLAGS_H

#include <linux/types.h>

#define X86_EFLAGS_IF 0x200

static __always_inline unsigned long arch_local_save_flags(void)
{
	unsigned long flags;

	asm volatile("pushf; pop %0" : "=rm"(flags) : : "memory");
	return flags;
}

static __always_inline void arch_local_irq_disable(void)
{
	asm volatile("cli" : : : "memory");
}

static __always_inline void arch_local_irq_enable(void)
{
	asm volatile("sti" : : : "memory");
}

#endif
