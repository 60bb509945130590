/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SWAB_H
#define _LINUX_SWAB_H

#include <linux/types.h>

#define swab16(x) ((__u16)__builtin_bswap16(x))
#define swab32(x) ((__u32)__builtin_bswap32(x))
#define swab64(x) ((__u64)__builtin_bswap64(x))
#define __swab16 swab16
#define __swab32 swab32
#define __swab64 swab64

#endif
