/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_UIO_H
#define _LINUX_UIO_H

#include <linux/compiler.h>
#include <linux/types.h>

struct iovec {
	void __user *iov_base;
	__kernel_size_t iov_len;
};

struct kvec {
	void *iov_base;
	size_t iov_len;
};

enum iter_type {
	ITER_IOVEC,
	ITER_KVEC,
	ITER_BVEC,
	ITER_PIPE,
	ITER_XARRAY,
	ITER_DISCARD,
	ITER_UBUF,
};

#define ITER_SOURCE 1
#define ITER_DEST 0

struct iov_iter {
	u8 iter_type;
	bool nofault;
	bool data_source;
	bool user_backed;
	size_t iov_offset;
	size_t count;
	union {
		const struct iovec *iov;
		const struct kvec *kvec;
		void __user *ubuf;
	};
	unsigned long nr_segs;
};

static inline enum iter_type iov_iter_type(const struct iov_iter *i)
{
	return i->iter_type;
}

static inline size_t iov_iter_count(const struct iov_iter *i)
{
	return i->count;
}

extern void iov_iter_kvec(struct iov_iter *i, unsigned int direction, const struct kvec *kvec,
			  unsigned long nr_segs, size_t count);
extern void iov_iter_advance(struct iov_iter *i, size_t bytes);
/* Both return the number of copied bytes, and advance the iterator by it. */
extern size_t _copy_to_iter(const void *addr, size_t bytes, struct iov_iter *i);
extern size_t _copy_from_iter(void *addr, size_t bytes, struct iov_iter *i);
#define copy_to_iter(addr, bytes, i) _copy_to_iter(addr, bytes, i)
#define copy_from_iter(addr, bytes, i) _copy_from_iter(addr, bytes, i)

#endif
