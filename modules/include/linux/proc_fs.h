/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _LINUX_PROC_FS_H
#define _LINUX_PROC_FS_H

#include <linux/compiler.h>
#include <linux/fs.h>
#include <linux/types.h>

struct seq_file;
struct seq_operations;

enum {
	PROC_ENTRY_PERMANENT = 1U << 0,
};

struct proc_ops {
	unsigned int proc_flags;
	int (*proc_open)(struct inode *inode, struct file *file);
	ssize_t (*proc_read)(struct file *file, char __user *buf, size_t size, loff_t *ppos);
	ssize_t (*proc_read_iter)(struct kiocb *iocb, struct iov_iter *iter);
	ssize_t (*proc_write)(struct file *file, const char __user *buf, size_t size, loff_t *ppos);
	loff_t (*proc_lseek)(struct file *file, loff_t offset, int whence);
	int (*proc_release)(struct inode *inode, struct file *file);
	__poll_t (*proc_poll)(struct file *file, struct poll_table_struct *wait);
	long (*proc_ioctl)(struct file *file, unsigned int cmd, unsigned long arg);
	int (*proc_mmap)(struct file *file, struct vm_area_struct *vma);
};

/* Opaque except to the service behind proc_create(). */
struct proc_dir_entry {
	void *data;
	umode_t mode;
	u8 flags;
};

typedef int (*proc_write_t)(struct file *file, char *buf, size_t size);

extern struct proc_dir_entry *proc_mkdir(const char *name, struct proc_dir_entry *parent);
extern struct proc_dir_entry *proc_mkdir_data(const char *name, umode_t mode,
					      struct proc_dir_entry *parent, void *data);
extern struct proc_dir_entry *proc_mkdir_mode(const char *name, umode_t mode,
					      struct proc_dir_entry *parent);
extern struct proc_dir_entry *proc_symlink(const char *name, struct proc_dir_entry *parent,
					   const char *dest);
extern struct proc_dir_entry *proc_create(const char *name, umode_t mode,
					  struct proc_dir_entry *parent,
					  const struct proc_ops *proc_ops);
extern struct proc_dir_entry *proc_create_data(const char *name, umode_t mode,
					       struct proc_dir_entry *parent,
					       const struct proc_ops *proc_ops, void *data);
extern struct proc_dir_entry *proc_create_seq_private(const char *name, umode_t mode,
						      struct proc_dir_entry *parent,
						      const struct seq_operations *ops,
						      unsigned int state_size, void *data);
extern struct proc_dir_entry *proc_create_single_data(const char *name, umode_t mode,
						      struct proc_dir_entry *parent,
						      int (*show)(struct seq_file *m, void *v),
						      void *data);
#define proc_create_seq_data(name, mode, parent, ops, data) \
	proc_create_seq_private(name, mode, parent, ops, 0, data)
#define proc_create_seq(name, mode, parent, ops) \
	proc_create_seq_private(name, mode, parent, ops, 0, NULL)
#define proc_create_single(name, mode, parent, show) \
	proc_create_single_data(name, mode, parent, show, NULL)
extern void proc_remove(struct proc_dir_entry *de);
extern void remove_proc_entry(const char *name, struct proc_dir_entry *parent);
extern int remove_proc_subtree(const char *name, struct proc_dir_entry *parent);
extern void proc_set_size(struct proc_dir_entry *de, loff_t size);
extern void *pde_data(const struct inode *inode);

#endif
