# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of /proc that modules register."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

MODULE = r"""
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

static unsigned long lines = 3;
static char word[16] = "nothing";
static struct proc_dir_entry *directory;

static void *start(struct seq_file *m, loff_t *pos) { return *pos < lines ? pos : NULL; }
static void *next(struct seq_file *m, void *v, loff_t *pos) { ++*pos; return start(m, pos); }
static void stop(struct seq_file *m, void *v) { }
static int show(struct seq_file *m, void *v)
{
	seq_printf(m, "line %lld of %lu\n", *(loff_t *)v, lines);
	return 0;
}
static const struct seq_operations list_ops = { start, stop, next, show };

static int word_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s from %s\n", word, (char *)m->private);
	return 0;
}
static int word_open(struct inode *inode, struct file *file)
{
	return single_open(file, word_show, pde_data(inode));
}
static ssize_t word_write(struct file *file, const char __user *buf, size_t size, loff_t *pos)
{
	if (size >= sizeof(word))
		return -E2BIG;
	memset(word, 0, sizeof(word));
	if (copy_from_user(word, buf, size))
		return -EFAULT;
	return size;
}
static const struct proc_ops word_ops = {
	.proc_open = word_open, .proc_read = seq_read, .proc_lseek = seq_lseek,
	.proc_release = single_release, .proc_write = word_write,
};
static int fails(struct seq_file *m, void *v) { return -EBUSY; }

static int __init begin(void)
{
	directory = proc_mkdir("test_proc", NULL);
	if (!directory || !proc_create_seq("list", 0, directory, &list_ops) ||
	    !proc_create_data("word", 0644, directory, &word_ops, "data") ||
	    !proc_create_single("fails", 0, directory, fails) ||
	    !proc_symlink("link", directory, "word") || proc_mkdir("test_proc", NULL))
		return -ENOMEM;
	return 0;
}
static void __exit end(void) { remove_proc_subtree("test_proc", NULL); }
module_init(begin);
module_exit(end);
module_param(lines, ulong, 0644);
MODULE_LICENSE("GPL");
"""


@pytest.fixture
def machine(klpfs_machine: Machine, ko: Callable[..., Path]) -> Machine:
    klpfs_machine.insmod(ko("test-proc", MODULE))
    return klpfs_machine


def test_an_iterated_file_longer_than_any_buffer(machine: Machine) -> None:
    assert machine.read("proc/test_proc/list") == "line 0 of 3\nline 1 of 3\nline 2 of 3\n"
    machine.write("sys/module/test_proc/parameters/lines", "10000")
    lines = machine.read("proc/test_proc/list").splitlines()
    assert lines == [f"line {i} of 10000" for i in range(10000)]


def test_a_file_with_its_own_operations(machine: Machine) -> None:
    machine.write("proc/test_proc/word", "something")
    assert machine.read("proc/test_proc/word") == "something from data\n"
    assert machine.read("proc/test_proc/link") == "something from data\n"
    with pytest.raises(OSError) as caught:
        machine.write("proc/test_proc/word", "much too long a word")
    assert caught.value.errno == errno.E2BIG
    assert os.stat(machine.path("proc/test_proc/word")).st_mode & 0o777 == 0o644


def test_an_error_of_show_is_the_reader_s(machine: Machine) -> None:
    with pytest.raises(OSError) as caught:
        machine.read("proc/test_proc/fails")
    assert caught.value.errno == errno.EBUSY


def test_they_go_with_the_module(machine: Machine) -> None:
    machine.rmmod("test_proc")
    assert not machine.path("proc/test_proc").exists()
    assert "test_proc" not in os.listdir(machine.path("proc"))
