/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_SEQ_FILE_H
#define _LINUX_SEQ_FILE_H

#include <linux/bug.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/types.h>

struct seq_operations;

struct seq_file {
	char *buf;
	size_t size;
	size_t from;
	size_t count;
	size_t pad_until;
	loff_t index;
	loff_t read_pos;
	struct mutex lock;
	const struct seq_operations *op;
	int poll_event;
	const struct file *file;
	void *private;
};

struct seq_operations {
	void *(*start)(struct seq_file *m, loff_t *pos);
	void (*stop)(struct seq_file *m, void *v);
	void *(*next)(struct seq_file *m, void *v, loff_t *pos);
	int (*show)(struct seq_file *m, void *v);
};

/* The return value of show() to leave out an element. */
#define SEQ_SKIP 1
/* The return value of start() to have show() print a header line. */
#define SEQ_START_TOKEN ((void *)1)

static inline bool seq_has_overflowed(struct seq_file *m)
{
	return m->count == m->size;
}

static inline size_t seq_get_buf(struct seq_file *m, char **bufp)
{
	BUG_ON(m->count > m->size);
	*bufp = m->count < m->size ? m->buf + m->count : NULL;
	return m->size - m->count;
}

static inline void seq_commit(struct seq_file *m, int num)
{
	if (num < 0) {
		m->count = m->size;
	} else {
		BUG_ON(m->count + num > m->size);
		m->count += num;
	}
}

/* The text from here to the next seq_pad() is padded to this many columns. */
static inline void seq_setwidth(struct seq_file *m, size_t size)
{
	m->pad_until = m->count + size;
}

extern void seq_pad(struct seq_file *m, char c);

extern char *mangle_path(char *s, const char *p, const char *esc);
extern int seq_open(struct file *file, const struct seq_operations *op);
extern ssize_t seq_read(struct file *file, char __user *buf, size_t size, loff_t *ppos);
extern ssize_t seq_read_iter(struct kiocb *iocb, struct iov_iter *iter);
extern loff_t seq_lseek(struct file *file, loff_t offset, int whence);
extern int seq_release(struct inode *inode, struct file *file);
extern int seq_write(struct seq_file *m, const void *data, size_t len);

extern __printf(2, 0) void seq_vprintf(struct seq_file *m, const char *fmt, va_list args);
extern __printf(2, 3) void seq_printf(struct seq_file *m, const char *fmt, ...);
extern void seq_putc(struct seq_file *m, char c);
extern void seq_puts(struct seq_file *m, const char *s);
extern void seq_put_decimal_ull_width(struct seq_file *m, const char *delimiter,
				      unsigned long long num, unsigned int width);
extern void seq_put_decimal_ull(struct seq_file *m, const char *delimiter, unsigned long long num);
extern void seq_put_decimal_ll(struct seq_file *m, const char *delimiter, long long num);
extern void seq_put_hex_ll(struct seq_file *m, const char *delimiter, unsigned long long v,
			   unsigned int width);
extern void seq_escape_mem(struct seq_file *m, const char *src, size_t len, unsigned int flags,
			   const char *esc);
extern void seq_escape(struct seq_file *m, const char *s, const char *esc);
extern void seq_hex_dump(struct seq_file *m, const char *prefix_str, int prefix_type, int rowsize,
			 int groupsize, const void *buf, size_t len, bool ascii);

extern int single_open(struct file *file, int (*show)(struct seq_file *m, void *v), void *data);
extern int single_open_size(struct file *file, int (*show)(struct seq_file *m, void *v),
			    void *data, size_t size);
extern int single_release(struct inode *inode, struct file *file);
extern void *__seq_open_private(struct file *file, const struct seq_operations *op, int psize);
extern int seq_open_private(struct file *file, const struct seq_operations *op, int psize);
extern int seq_release_private(struct inode *inode, struct file *file);

extern struct list_head *seq_list_start(struct list_head *head, loff_t pos);
extern struct list_head *seq_list_start_head(struct list_head *head, loff_t pos);
extern struct list_head *seq_list_next(void *v, struct list_head *head, loff_t *ppos);
extern struct hlist_node *seq_hlist_start(struct hlist_head *head, loff_t pos);
extern struct hlist_node *seq_hlist_start_head(struct hlist_head *head, loff_t pos);
extern struct hlist_node *seq_hlist_next(void *v, struct hlist_head *head, loff_t *ppos);

#define DEFINE_SEQ_ATTRIBUTE(__name)                                            \
	static int __name##_open(struct inode *inode, struct file *file)        \
	{                                                                       \
		int ret = seq_open(file, &__name##_sops);                       \
		if (!ret && inode->i_private) {                                 \
			struct seq_file *seq_f = file->private_data;            \
			seq_f->private = inode->i_private;                      \
		}                                                               \
		return ret;                                                     \
	}                                                                       \
	static const struct file_operations __name##_fops = {                   \
		.owner = THIS_MODULE,                                           \
		.open = __name##_open,                                          \
		.read = seq_read,                                               \
		.llseek = seq_lseek,                                            \
		.release = seq_release,                                         \
	}
#define DEFINE_SHOW_ATTRIBUTE(__name)                                           \
	static int __name##_open(struct inode *inode, struct file *file)        \
	{                                                                       \
		return single_open(file, __name##_show, inode->i_private);      \
	}                                                                       \
	static const struct file_operations __name##_fops = {                   \
		.owner = THIS_MODULE,                                           \
		.open = __name##_open,                                          \
		.read = seq_read,                                               \
		.llseek = seq_lseek,                                            \
		.release = single_release,                                      \
	}
#define DEFINE_PROC_SHOW_ATTRIBUTE(__name)                                      \
	static int __name##_open(struct inode *inode, struct file *file)        \
	{                                                                       \
		return single_open(file, __name##_show, pde_data(inode));       \
	}                                                                       \
	static const struct proc_ops __name##_proc_ops = {                      \
		.proc_open = __name##_open,                                     \
		.proc_read = seq_read,                                          \
		.proc_lseek = seq_lseek,                                        \
		.proc_release = single_release,                                 \
	}

#endif
