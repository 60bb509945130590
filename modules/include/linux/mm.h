/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_MM_H
#define _LINUX_MM_H

#include <linux/align.h>
#include <linux/gfp.h>
#include <linux/slab.h>
#include <linux/sysinfo.h>
#include <linux/types.h>
#include <linux/vmalloc.h>
#include <asm/page.h>

#define PAGE_ALIGN(addr) ALIGN(addr, PAGE_SIZE)
#define PAGE_ALIGNED(addr) IS_ALIGNED((unsigned long)(addr), PAGE_SIZE)
#define offset_in_page(p) ((unsigned long)(p) & ~PAGE_MASK)

extern void si_meminfo(struct sysinfo *val);
extern long si_mem_available(void);

#endif
