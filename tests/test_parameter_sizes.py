# SPDX-License-Identifier: GPL-2.0-or-later
"""A parameter says how many bytes its get() has written: more than a page is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

SOURCE = """
#include <linux/module.h>
#include <linux/moduleparam.h>

static ulong count;
module_param(count, ulong, 0644);

static ulong get_count(char *buffer, const struct kernel_param *param) { return count; }
static int get_nothing(char *buffer, const struct kernel_param *param) { return 0; }
static struct kernel_param_ops ops = { .get = get_nothing };
module_param_cb(big, &ops, NULL, 0444);

static int __init counts_init(void)
{
	ops.get = (void *)get_count;
	return 0;
}
static void __exit counts_exit(void) {}
module_init(counts_init);
module_exit(counts_exit);
MODULE_LICENSE("GPL");
"""


@pytest.mark.parametrize("count", [4096, 1 << 20, 0x7FFFFFFF])
def test_a_count_of_a_page_or_more(
    klpfs_machine: Machine, ko: Callable[..., Path], count: int
) -> None:
    klpfs_machine.insmod(ko("counts", SOURCE), f"count={count}")
    assert len(klpfs_machine.path("sys/module/counts/parameters/big").read_bytes()) == 4095
    assert any(
        line.startswith("fill_read_buffer: ") and line.endswith(" returned bad count")
        for line in klpfs_machine.dmesg()
    )


def test_the_upper_half_of_a_count_does_not_matter(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    klpfs_machine.insmod(ko("counts", SOURCE), f"count={(1 << 40) + 3}")
    assert klpfs_machine.path("sys/module/counts/parameters/big").read_bytes() == bytes(3)
