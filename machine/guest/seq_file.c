/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that are a sequence of elements, each shown as text: fs/seq_file.c.
 *
 * The buffer holds whole elements. If one does not fit, the size of the buffer is doubled, and the
 * element is shown again.
 */

#include <linux/ctype.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "bug_at.h"

#define MAX_RW_COUNT (INT_MAX & PAGE_MASK)


static void *seq_buf_alloc(size_t size)
{
	return size > MAX_RW_COUNT ? NULL : kvmalloc(size, GFP_KERNEL_ACCOUNT);
}

static void seq_buf_replace(struct seq_file *m, size_t size)
{
	kvfree(m->buf);
	m->count = 0;
	m->size = size;
	m->buf = seq_buf_alloc(size);
}

int seq_open(struct file *file, const struct seq_operations *op)
{
	struct seq_file *m;

	WARN_ON_AT("fs/seq_file.c", 61, file->private_data);
	m = kzalloc(sizeof(*m), GFP_KERNEL);
	if (!m)
		return -ENOMEM;
	mutex_init(&m->lock);
	m->op = op;
	m->file = file;
	file->private_data = m;
	/* The text is generated in order of positions. */
	file->f_mode &= ~FMODE_PWRITE;
	return 0;
}
EXPORT_SYMBOL(seq_open);

/* Go to a position by showing the elements before it. */
static int traverse(struct seq_file *m, loff_t offset)
{
	loff_t pos = 0;
	int error = 0;
	void *p;

	m->index = 0;
	m->count = m->from = 0;
	if (!offset)
		return 0;
	if (!m->buf) {
		seq_buf_replace(m, PAGE_SIZE);
		if (!m->buf)
			return -ENOMEM;
	}
	p = m->op->start(m, &m->index);
	while (p) {
		error = PTR_ERR(p);
		if (IS_ERR(p))
			break;
		error = m->op->show(m, p);
		if (error < 0)
			break;
		if (unlikely(error)) {
			error = 0;
			m->count = 0;
		}
		if (seq_has_overflowed(m)) {
			m->op->stop(m, p);
			seq_buf_replace(m, m->size << 1);
			return m->buf ? -EAGAIN : -ENOMEM;
		}
		p = m->op->next(m, p, &m->index);
		if (pos + m->count > offset) {
			m->from = offset - pos;
			m->count -= m->from;
			break;
		}
		pos += m->count;
		m->count = 0;
		if (pos == offset)
			break;
	}
	m->op->stop(m, p);
	return error;
}

static int traverse_again(struct seq_file *m, loff_t offset)
{
	int err;

	while ((err = traverse(m, offset)) == -EAGAIN)
		;
	return err;
}

/*
 * Show the element at the current index. Stop and start again for each larger buffer. Return NULL
 * at the end.
 */
static void *show_first(struct seq_file *m, int *err)
{
	void *p;

	m->from = 0;
	p = m->op->start(m, &m->index);
	for (;;) {
		*err = PTR_ERR(p);
		if (IS_ERR_OR_NULL(p))
			break;
		*err = m->op->show(m, p);
		if (*err < 0)
			break;
		if (unlikely(*err))
			m->count = 0;
		if (unlikely(!m->count)) {
			p = m->op->next(m, p, &m->index);
			continue;
		}
		if (!seq_has_overflowed(m)) {
			*err = 0;
			return p;
		}
		m->op->stop(m, p);
		seq_buf_replace(m, m->size << 1);
		if (!m->buf) {
			*err = -ENOMEM;
			return NULL;
		}
		p = m->op->start(m, &m->index);
	}
	m->op->stop(m, p);
	m->count = 0;
	return NULL;
}

/* Add the elements behind p while they fit and the text is shorter than wanted. */
static int show_more(struct seq_file *m, void *p, size_t wanted)
{
	int err = 0;

	for (;;) {
		size_t offset = m->count;
		loff_t pos = m->index;

		p = m->op->next(m, p, &m->index);
		if (pos == m->index) {
			pr_info_ratelimited("buggy .next function %ps did not update position index\n",
					    m->op->next);
			m->index++;
		}
		if (IS_ERR_OR_NULL(p))
			break;
		if (m->count >= wanted)
			break;
		err = m->op->show(m, p);
		if (err > 0) {
			m->count = offset;
		} else if (err || seq_has_overflowed(m)) {
			m->count = offset;
			break;
		}
	}
	m->op->stop(m, p);
	return err;
}

/* Copy the content of the buffer to the reader. */
static size_t flush(struct seq_file *m, struct iov_iter *iter)
{
	size_t n = copy_to_iter(m->buf + m->from, m->count, iter);

	m->count -= n;
	m->from += n;
	return n;
}

ssize_t seq_read_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	struct seq_file *m = iocb->ki_filp->private_data;
	size_t copied = 0;
	void *p;
	int err = 0;

	if (!iov_iter_count(iter))
		return 0;
	mutex_lock(&m->lock);

	if (iocb->ki_pos == 0) {
		m->index = 0;
		m->count = 0;
	}
	if (unlikely(iocb->ki_pos != m->read_pos)) {
		err = traverse_again(m, iocb->ki_pos);
		if (err) {
			m->read_pos = 0;
			m->index = 0;
			m->count = 0;
			goto done;
		}
		m->read_pos = iocb->ki_pos;
	}
	if (!m->buf) {
		seq_buf_replace(m, PAGE_SIZE);
		if (!m->buf) {
			err = -ENOMEM;
			goto done;
		}
	}
	if (m->count) {
		copied = flush(m, iter);
		if (m->count || !iov_iter_count(iter))
			goto done;
	}
	p = show_first(m, &err);
	if (p) {
		/* An element that does not fit is shown by the next read. */
		err = show_more(m, p, iov_iter_count(iter));
		if (err > 0)
			err = 0;
		copied += flush(m, iter);
	}
done:
	if (unlikely(!copied)) {
		copied = m->count ? -EFAULT : err;
	} else {
		iocb->ki_pos += copied;
		m->read_pos += copied;
	}
	mutex_unlock(&m->lock);
	return copied;
}
EXPORT_SYMBOL(seq_read_iter);

ssize_t seq_read(struct file *file, char __user *buf, size_t size, loff_t *ppos)
{
	struct kvec vec = { .iov_base = buf, .iov_len = size };
	struct kiocb kiocb;
	struct iov_iter iter;
	ssize_t ret;

	init_sync_kiocb(&kiocb, file);
	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, size);
	kiocb.ki_pos = *ppos;
	ret = seq_read_iter(&kiocb, &iter);
	*ppos = kiocb.ki_pos;
	return ret;
}
EXPORT_SYMBOL(seq_read);

loff_t seq_lseek(struct file *file, loff_t offset, int whence)
{
	struct seq_file *m = file->private_data;
	loff_t retval = -EINVAL;

	mutex_lock(&m->lock);
	if (whence == SEEK_CUR)
		offset += file->f_pos;
	if ((whence == SEEK_SET || whence == SEEK_CUR) && offset >= 0) {
		retval = offset;
		if (offset != m->read_pos) {
			int err = traverse_again(m, offset);

			if (err) {
				retval = err;
				file->f_pos = m->read_pos = 0;
				m->index = 0;
				m->count = 0;
			} else {
				m->read_pos = file->f_pos = offset;
			}
		} else {
			file->f_pos = offset;
		}
	}
	mutex_unlock(&m->lock);
	return retval;
}
EXPORT_SYMBOL(seq_lseek);

int seq_release(struct inode *inode, struct file *file)
{
	struct seq_file *m = file->private_data;

	kvfree(m->buf);
	kfree(m);
	return 0;
}
EXPORT_SYMBOL(seq_release);

/* -- files of one element ---------------------------------------------------------------------- */

static void *single_start(struct seq_file *m, loff_t *pos)
{
	return *pos ? NULL : SEQ_START_TOKEN;
}

static void *single_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return NULL;
}

static void single_stop(struct seq_file *m, void *v)
{
}

int single_open(struct file *file, int (*show)(struct seq_file *m, void *v), void *data)
{
	struct seq_operations *op = kmalloc(sizeof(*op), GFP_KERNEL_ACCOUNT);
	int res = -ENOMEM;

	if (op) {
		op->start = single_start;
		op->next = single_next;
		op->stop = single_stop;
		op->show = show;
		res = seq_open(file, op);
		if (res)
			kfree(op);
		else
			((struct seq_file *)file->private_data)->private = data;
	}
	return res;
}
EXPORT_SYMBOL(single_open);

int single_open_size(struct file *file, int (*show)(struct seq_file *m, void *v), void *data,
		     size_t size)
{
	char *buf = seq_buf_alloc(size);
	struct seq_file *m;
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = single_open(file, show, data);
	if (ret) {
		kvfree(buf);
		return ret;
	}
	m = file->private_data;
	m->buf = buf;
	m->size = size;
	return 0;
}
EXPORT_SYMBOL(single_open_size);

int single_release(struct inode *inode, struct file *file)
{
	const struct seq_operations *op = ((struct seq_file *)file->private_data)->op;
	int res = seq_release(inode, file);

	kfree(op);
	return res;
}
EXPORT_SYMBOL(single_release);

void *__seq_open_private(struct file *file, const struct seq_operations *op, int psize)
{
	void *private = kzalloc(psize, GFP_KERNEL_ACCOUNT);

	if (!private)
		return NULL;
	if (seq_open(file, op) < 0) {
		kfree(private);
		return NULL;
	}
	((struct seq_file *)file->private_data)->private = private;
	return private;
}
EXPORT_SYMBOL(__seq_open_private);

int seq_open_private(struct file *file, const struct seq_operations *op, int psize)
{
	return __seq_open_private(file, op, psize) ? 0 : -ENOMEM;
}
EXPORT_SYMBOL(seq_open_private);

int seq_release_private(struct inode *inode, struct file *file)
{
	struct seq_file *m = file->private_data;

	kfree(m->private);
	m->private = NULL;
	return seq_release(inode, file);
}
EXPORT_SYMBOL(seq_release_private);
