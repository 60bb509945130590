/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_POISON_H
#define _LINUX_POISON_H

/* Addresses that are not canonical: a use of a deleted entry faults, and can be recognized. */
#define POISON_POINTER_DELTA 0xdead000000000000UL
#define LIST_POISON1 ((void *)(0x100 + POISON_POINTER_DELTA))
#define LIST_POISON2 ((void *)(0x122 + POISON_POINTER_DELTA))

#endif
