/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mm/page_alloc.c, without the allocator itself, which is a service. */

#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/mm.h>

unsigned long get_zeroed_page(gfp_t gfp_mask)
{
	return __get_free_pages(gfp_mask | __GFP_ZERO, 0);
}
EXPORT_SYMBOL(get_zeroed_page);

/* Return the number of available pages. There is no page cache, so these are the free pages. */
long si_mem_available(void)
{
	struct sysinfo i = {};

	si_meminfo(&i);
	return i.freeram;
}
EXPORT_SYMBOL_GPL(si_mem_available);
