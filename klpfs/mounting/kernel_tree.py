# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel, booted, as the tree of a mount: what the daemon serves."""

from __future__ import annotations

import errno
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from klpfs.fs.nodes import Root
from klpfs.fs.tree import tree
from klpfs.machine.image import Image
from klpfs.machine.kernel.clock import Clock, VirtualClock
from klpfs.machine.kernel.kernel import DEFAULT_COMMAND_LINE, DEFAULT_MEMORY, Kernel
from klpfs.mounting.mounts import MountError

SLICE_INSTRUCTIONS = 100_000
"""A time slice under virtual time, where runs are to be repeatable."""


def kernel_tree(
    image: Image,
    *,
    memory_size: int = DEFAULT_MEMORY,
    virtual_time: bool = False,
    command_line: str = DEFAULT_COMMAND_LINE,
    seed: int = 0,
) -> Callable[[], AbstractAsyncContextManager[Root]]:
    """Return what `mounting.daemon.serve` mounts: ``image`` on a computer with ``memory_size`` bytes of RAM.
    ``command_line`` is for a kernel that does not bring one, ``seed`` decides on the order of tasks under
    virtual time."""

    @asynccontextmanager
    async def booted() -> AsyncIterator[Root]:
        nonlocal image
        gc.disable()  # a hundred thousand objects come, and none goes
        try:
            kernel = Kernel(
                image,
                VirtualClock(seed) if virtual_time else Clock(),
                memory_size=memory_size,
                slice_instructions=SLICE_INSTRUCTIONS if virtual_time else 0,
                command_line=command_line,
            )
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            size = f"{memory_size >> 20} MiB"
            raise MountError(f"this computer has no {size} to give; --memory 64M") from None
        finally:
            gc.enable()
        image = kernel.image  # the other has the content of the memory once more
        gc.freeze()
        try:
            async with trio.open_nursery() as nursery:
                await kernel.boot(nursery)
                yield tree(kernel)
                nursery.cancel_scope.cancel()
        finally:
            kernel.close()

    return booted
