/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hash that %p prints: SipHash-2-4 of the address with a key made at boot, lib/vsprintf.c. */

#include <linux/types.h>

#include "printf.h"

/* The key, set at boot by Python. While it is 0, no addresses are printed. */
u64 ptr_key[2];

static u64 rotate(u64 x, int n)
{
	return x << n | x >> (64 - n);
}

static void mix(u64 v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static void absorb(u64 v[4], u64 word)
{
	v[3] ^= word;
	mix(v);
	mix(v);
	v[0] ^= word;
}

unsigned long ptr_to_id(const void *ptr)
{
	u64 v[4] = {
		ptr_key[0] ^ 0x736f6d6570736575ULL,
		ptr_key[1] ^ 0x646f72616e646f6dULL,
		ptr_key[0] ^ 0x6c7967656e657261ULL,
		ptr_key[1] ^ 0x7465646279746573ULL,
	};

	if (!ptr_key[0] && !ptr_key[1])
		return 0;
	absorb(v, (unsigned long)ptr);
	absorb(v, (u64)sizeof(ptr) << 56);
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		mix(v);
	return (v[0] ^ v[1] ^ v[2] ^ v[3]) & 0xffffffff;
}
