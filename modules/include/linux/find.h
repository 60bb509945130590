/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_FIND_H
#define _LINUX_FIND_H

#include <linux/bits.h>

static inline unsigned long __find_next(const unsigned long *addr, unsigned long size,
					unsigned long offset, unsigned long invert)
{
	unsigned long index, word;

	if (offset >= size)
		return size;
	index = BIT_WORD(offset);
	word = (addr[index] ^ invert) & (~UL(0) << (offset % BITS_PER_LONG));
	while (!word) {
		if (++index * BITS_PER_LONG >= size)
			return size;
		word = addr[index] ^ invert;
	}
	offset = index * BITS_PER_LONG + __builtin_ctzl(word);
	return offset < size ? offset : size;
}

/* All return size if there is no such bit. */

static inline unsigned long find_next_bit(const unsigned long *addr, unsigned long size,
					  unsigned long offset)
{
	return __find_next(addr, size, offset, 0);
}

static inline unsigned long find_next_zero_bit(const unsigned long *addr, unsigned long size,
					       unsigned long offset)
{
	return __find_next(addr, size, offset, ~UL(0));
}

#define find_first_bit(addr, size) find_next_bit(addr, size, 0)
#define find_first_zero_bit(addr, size) find_next_zero_bit(addr, size, 0)

#define for_each_set_bit(bit, addr, size)                                     \
	for ((bit) = find_first_bit((addr), (size)); (bit) < (size);          \
	     (bit) = find_next_bit((addr), (size), (bit) + 1))
#define for_each_clear_bit(bit, addr, size)                                   \
	for ((bit) = find_first_zero_bit((addr), (size)); (bit) < (size);     \
	     (bit) = find_next_zero_bit((addr), (size), (bit) + 1))

#endif
