/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _ASM_BITSPERLONG_H
#define _ASM_BITSPERLONG_H

#define BITS_PER_LONG 64
#define BITS_PER_LONG_LONG 64

#endif
