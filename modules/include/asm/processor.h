/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_PROCESSOR_H
#define _ASM_PROCESSOR_H

#include <linux/types.h>

struct thread_struct {
	unsigned long sp;
};

static __always_inline void cpu_relax(void)
{
	asm volatile("rep; nop" : : : "memory");
}

#endif
