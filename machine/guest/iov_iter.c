/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Iterators over several buffers to copy to or from: lib/iov_iter.c. Only buffers in kernel memory
 * (kvec) are supported.
 */

#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/uio.h>

void iov_iter_kvec(struct iov_iter *i, unsigned int direction, const struct kvec *kvec,
		   unsigned long nr_segs, size_t count)
{
	*i = (struct iov_iter) {
		.iter_type = ITER_KVEC,
		.data_source = direction,
		.kvec = kvec,
		.nr_segs = nr_segs,
		.count = count,
	};
}
EXPORT_SYMBOL(iov_iter_kvec);

/* Return the rest of the current buffer, or NULL at the end. */
static void *here(struct iov_iter *i, size_t *len)
{
	if (WARN_ON_ONCE(i->iter_type != ITER_KVEC))
		return NULL;
	while (i->nr_segs && i->iov_offset == i->kvec->iov_len) {
		i->kvec++;
		i->nr_segs--;
		i->iov_offset = 0;
	}
	if (!i->nr_segs)
		return NULL;
	*len = min(i->kvec->iov_len - i->iov_offset, i->count);
	return *len ? i->kvec->iov_base + i->iov_offset : NULL;
}

static void step(struct iov_iter *i, size_t len)
{
	i->iov_offset += len;
	i->count -= len;
}

size_t _copy_to_iter(const void *addr, size_t bytes, struct iov_iter *i)
{
	size_t copied = 0, len;
	void *at;

	while (copied < bytes && (at = here(i, &len))) {
		len = min(len, bytes - copied);
		memcpy(at, addr + copied, len);
		step(i, len);
		copied += len;
	}
	return copied;
}
EXPORT_SYMBOL(_copy_to_iter);

size_t _copy_from_iter(void *addr, size_t bytes, struct iov_iter *i)
{
	size_t copied = 0, len;
	void *at;

	while (copied < bytes && (at = here(i, &len))) {
		len = min(len, bytes - copied);
		memcpy(addr + copied, at, len);
		step(i, len);
		copied += len;
	}
	return copied;
}
EXPORT_SYMBOL(_copy_from_iter);

void iov_iter_advance(struct iov_iter *i, size_t bytes)
{
	size_t len;

	for (bytes = min(bytes, i->count); bytes && here(i, &len); bytes -= len) {
		len = min(len, bytes);
		step(i, len);
	}
}
EXPORT_SYMBOL(iov_iter_advance);
