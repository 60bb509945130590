/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names of allocation flags (%pGg). Combinations come before the flags that they contain. */

#include <linux/gfp.h>
#include <linux/kernel.h>

#include "printf.h"

#define NAMED(flag) { (__force unsigned int)(flag), #flag }

static const struct {
	unsigned int mask;
	const char *name;
} names[] = {
	NAMED(GFP_HIGHUSER), NAMED(GFP_USER), NAMED(GFP_KERNEL_ACCOUNT), NAMED(GFP_KERNEL),
	NAMED(GFP_NOFS), NAMED(GFP_ATOMIC), NAMED(GFP_NOIO), NAMED(GFP_NOWAIT), NAMED(GFP_DMA),
	NAMED(__GFP_HIGHMEM), NAMED(GFP_DMA32), NAMED(__GFP_HIGH), NAMED(__GFP_ATOMIC),
	NAMED(__GFP_IO), NAMED(__GFP_FS), NAMED(__GFP_NOWARN), NAMED(__GFP_RETRY_MAYFAIL),
	NAMED(__GFP_NOFAIL), NAMED(__GFP_NORETRY), NAMED(__GFP_COMP), NAMED(__GFP_ZERO),
	NAMED(__GFP_NOMEMALLOC), NAMED(__GFP_MEMALLOC), NAMED(__GFP_HARDWALL),
	NAMED(__GFP_THISNODE), NAMED(__GFP_RECLAIMABLE), NAMED(__GFP_MOVABLE),
	NAMED(__GFP_ACCOUNT), NAMED(__GFP_WRITE), NAMED(__GFP_RECLAIM),
	NAMED(__GFP_DIRECT_RECLAIM), NAMED(__GFP_KSWAPD_RECLAIM), NAMED(__GFP_ZEROTAGS),
};

void emit_gfp_flags(struct out *out, gfp_t gfp)
{
	static const struct spec text = { .width = -1, .precision = -1, .base = 10 };
	struct spec hex = { .width = -1, .precision = -1, .base = 16, .flags = SPECIAL | SMALL };
	unsigned int flags = (__force unsigned int)gfp;
	bool first = true;

	for (int i = 0; i < ARRAY_SIZE(names) && flags; i++) {
		if ((flags & names[i].mask) != names[i].mask)
			continue;
		if (!first)
			emit(out, '|');
		emit_string(out, names[i].name, text);
		flags &= ~names[i].mask;
		first = false;
	}
	if (!flags)
		return;
	if (!first)
		emit(out, '|');
	emit_number(out, flags, hex);
}
