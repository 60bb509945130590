# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree that a klpfs daemon serves: that of a kernel, which it boots."""

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
"""The time slice of a task in virtual time, in instructions, so that runs can be repeated."""


def kernel_tree(
    image: Image,
    *,
    memory_size: int = DEFAULT_MEMORY,
    virtual_time: bool = False,
    command_line: str = DEFAULT_COMMAND_LINE,
    seed: int = 0,
) -> Callable[[], AbstractAsyncContextManager[Root]]:
    """Return the ``make_tree`` for `klpfs.mounting.daemon.serve`: it boots ``image`` on a new computer.

    ``memory_size``: the bytes of RAM.
    ``command_line``: that of the kernel, unless ``image`` brings one.
    ``seed``: determines the order of tasks in virtual time.
    """

    @asynccontextmanager
    async def booted() -> AsyncIterator[Root]:
        nonlocal image
        gc.disable()  # a hundred thousand objects are made here, and none becomes garbage
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
            raise MountError(
                f"cannot allocate {memory_size >> 20} MiB for the machine's RAM; use a smaller "
                "--memory"
            ) from None
        finally:
            gc.enable()
        image = kernel.image  # drops the first image, with its copy of the initial memory
        gc.freeze()
        try:
            async with trio.open_nursery() as nursery:
                await kernel.boot(nursery)
                yield tree(kernel)
                nursery.cancel_scope.cancel()
        finally:
            kernel.close()

    return booted
