# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys/kernel/debug``: dynamic debug. lib/dynamic_debug.c."""

from __future__ import annotations

import errno

from klpfs.fs.attributes import ProcFile
from klpfs.fs.nodes import Caller, Directory
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.memory import PAGE_SIZE

_MAX_QUERIES = PAGE_SIZE - 1


def debugfs(kernel: Kernel) -> Directory:
    """Return the directory, which contains ``dynamic_debug/control``."""

    async def show(_caller: Caller) -> bytes:
        return kernel.dyndbg.control().encode()

    async def store(_caller: Caller, data: bytes) -> None:
        if len(data) > _MAX_QUERIES:
            kernel.printk(LOGLEVEL_WARNING, f"dyndbg: expected <{PAGE_SIZE} bytes into control")
            raise OSError(errno.E2BIG, "too many queries")
        kernel.dyndbg.execute(data.split(b"\0")[0].decode("latin-1"))

    root = Directory(0o700)
    root.add("dynamic_debug", Directory(0o755)).add("control", ProcFile(show, store))
    return root
