# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys/kernel/debug``: dynamic debug, and ``clear_warn_once``. lib/dynamic_debug.c, kernel/panic.c."""

from __future__ import annotations

import errno
import re

from klpfs.fs.attributes import ProcFile
from klpfs.fs.nodes import Caller, Directory
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.memory import PAGE_SIZE

_MAX_QUERIES = PAGE_SIZE - 1
_MAX_NUMBER = 23
"""Number of bytes of a written number that are read (``simple_attr_write``, fs/libfs.c)."""


class _ClearWarnOnce(ProcFile):
    """``clear_warn_once``. Any number that is written lets warnings that were reported once be reported
    again. It cannot be read, even by root."""

    unsupported_errno = errno.EACCES

    def __init__(self, kernel: Kernel) -> None:
        async def store(_caller: Caller, data: bytes) -> None:
            number = data[:_MAX_NUMBER].split(b"\0")[0]
            if not re.fullmatch(rb"\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\n?", number):
                raise OSError(errno.EINVAL, "not a number")
            kernel.bugs.clear_once()

        super().__init__(store=store, mode=0o200)


def debugfs(kernel: Kernel) -> Directory:
    """Return the directory, which contains ``clear_warn_once`` and ``dynamic_debug/control``."""

    async def show(_caller: Caller) -> bytes:
        return kernel.dyndbg.control().encode()

    async def store(_caller: Caller, data: bytes) -> None:
        if len(data) > _MAX_QUERIES:
            kernel.printk(LOGLEVEL_WARNING, f"dyndbg: expected <{PAGE_SIZE} bytes into control")
            raise OSError(errno.E2BIG, "too many queries")
        kernel.dyndbg.execute(data.split(b"\0")[0].decode("latin-1"))

    root = Directory(0o700)
    root.add("clear_warn_once", _ClearWarnOnce(kernel))
    root.add("dynamic_debug", Directory(0o755)).add("control", ProcFile(show, store))
    return root
