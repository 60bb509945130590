/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UNITS_H
#define UNITS_H

#include <linux/compiler.h>

/* The old version keeps lengths in centimetres, the new one in millimetres. */
#define OLD_UNITS 100
#define NEW_UNITS 1000
/* The length that every task measures. */
#define METRES 7

/* Pause in the middle of a patched function. */
extern void units_pause(void);
/* Note that a call of a new function has begun. */
extern void units_new_call(void);

extern long units_store(long metres);
extern long units_load(long length);
extern long units_measure(long metres);

#endif
