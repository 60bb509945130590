# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys/kernel/debug``: dynamic debug. lib/dynamic_debug.c."""

from __future__ import annotations

from klpfs.nodes import Caller, Directory, ProcFile
from machine.kernel.kernel import Kernel


def debugfs(kernel: Kernel) -> Directory:
    """The directory, with ``dynamic_debug/control`` in it."""

    async def show(_caller: Caller) -> bytes:
        return kernel.dyndbg.control().encode()

    async def store(_caller: Caller, data: bytes) -> None:
        kernel.dyndbg.execute(data)

    root = Directory(0o700)
    root.add("dynamic_debug", Directory(0o755)).add("control", ProcFile(show, store))
    return root
