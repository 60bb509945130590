/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UNITS_H
#define UNITS_H

#include <linux/compiler.h>

/* In the old version lengths are kept in centimetres, in the new one in millimetres. */
#define OLD_UNITS 100
#define NEW_UNITS 1000
/* What every task measures. */
#define METRES 7

/* A patched function pauses, in the middle of what it does. */
extern void units_pause(void);
/* A call of a new function has begun. */
extern void units_new_call(void);

extern long units_store(long metres);
extern long units_load(long length);
extern long units_measure(long metres);

#endif
