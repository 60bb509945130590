/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _PROC_INTERNAL_H
#define _PROC_INTERNAL_H

#include <linux/proc_fs.h>

/* Refuse to remove the entry. */
static inline void pde_make_permanent(struct proc_dir_entry *pde)
{
	pde->flags |= PROC_ENTRY_PERMANENT;
}

#endif
