/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mm/page_alloc.c, as far as it is not the allocator itself. */

#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/mm.h>

unsigned long get_zeroed_page(gfp_t gfp_mask)
{
	return __get_free_pages(gfp_mask | __GFP_ZERO, 0);
}
EXPORT_SYMBOL(get_zeroed_page);

/* In pages. There is no page cache to give any back: what is available is what is free. */
long si_mem_available(void)
{
	struct sysinfo i = {};

	si_meminfo(&i);
	return i.freeram;
}
EXPORT_SYMBOL_GPL(si_mem_available);
