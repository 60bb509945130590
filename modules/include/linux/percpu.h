/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_PERCPU_H
#define _LINUX_PERCPU_H

#include <linux/preempt.h>
#include <linux/smp.h>
#include <asm/percpu.h>

extern void __percpu *__alloc_percpu(size_t size, size_t align);
extern void free_percpu(void __percpu *ptr);
#define alloc_percpu(type) ((typeof(type) __percpu *)__alloc_percpu(sizeof(type), __alignof__(type)))

#endif
