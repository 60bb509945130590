# SPDX-License-Identifier: GPL-2.0-or-later
"""User memory, arch/x86/include/asm/uaccess.h.

The programs that make system calls run on the host. Their buffers are copied to the lower half of the
guest's address space, where the kernel expects user memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from klpfs.machine.extents import Extents
from klpfs.machine.kernel.base import Base

USER_START, USER_END = 0x7F0000000000, 0x7FFFFFFFF000
"""Range of user addresses for buffers."""
_ARGUMENTS = ("di", "si", "dx", "r10", "r8", "r9")


class UserMemory:
    """Buffers in user memory, and system calls."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self._sched = base.sched
        self._slab = base.slab
        self._area = Extents(USER_START, USER_END)

    @contextmanager
    def buffer(self, size: int) -> Iterator[int]:
        """Map ``size`` zeroed bytes for the time of a call. Yields their user address. Raises MemoryError."""
        address = self._computer.map_pages(self._area, max(size, 1))
        try:
            yield address
        finally:
            self._computer.unmap_pages(self._area, address, max(size, 1))

    async def syscall(self, name: str, *arguments: int) -> int:
        """Call ``__x64_sys_<name>`` on the current task. Returns its result. Raises OSError with its
        errno; LookupError if the kernel has no such system call."""
        function = self._computer.symbol(f"__x64_sys_{name}")
        space = self._computer.space
        size = space.types.sizeof("struct pt_regs")
        regs = space.view("struct pt_regs", self._slab.alloc(size, "pt_regs"))
        try:
            for register, argument in zip(_ARGUMENTS, arguments, strict=False):
                setattr(regs, register, argument)
            result = await self._sched.current.call(function, regs.address_)
        finally:
            self._slab.free(regs.address_)
        if result >> 63:
            raise OSError((1 << 64) - result, f"{name}() failed in the guest")
        return result
