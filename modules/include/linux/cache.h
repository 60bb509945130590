/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_CACHE_H
#define _LINUX_CACHE_H

#include <asm/cache.h>
#include <linux/align.h>

#define __read_mostly
#define __ro_after_init __section(".data..ro_after_init")
#define SMP_CACHE_BYTES L1_CACHE_BYTES
#define L1_CACHE_ALIGN(x) ALIGN(x, L1_CACHE_BYTES)
#define ____cacheline_aligned __aligned(SMP_CACHE_BYTES)
#define ____cacheline_aligned_in_smp
#define __cacheline_aligned __aligned(SMP_CACHE_BYTES)

#endif
