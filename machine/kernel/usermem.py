# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that make system calls are not in this machine, but what they hand in and get back is: in the
lower half of the address space, where the kernel looks for it. arch/x86/include/asm/uaccess.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from klpfs.machine.extents import Extents
from klpfs.machine.kernel.base import Base

USER_START, USER_END = 0x7F0000000000, 0x7FFFFFFFF000
"""Where a program has its stack and its libraries."""
_ARGUMENTS = ("di", "si", "dx", "r10", "r8", "r9")


class UserMemory:
    """Buffers of programs, and calls from there."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self._sched = base.sched
        self._slab = base.slab
        self._area = Extents(USER_START, USER_END)

    @contextmanager
    def buffer(self, size: int) -> Iterator[int]:
        """The user address of ``size`` zeroed bytes, for the time of a call. Raises MemoryError."""
        address = self._computer.map_pages(self._area, max(size, 1))
        try:
            yield address
        finally:
            self._computer.unmap_pages(self._area, address, max(size, 1))

    async def syscall(self, name: str, *arguments: int) -> int:
        """What ``__x64_sys_<name>`` returns to the current task. Raises OSError with its errno;
        LookupError if the kernel has no such call."""
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
            raise OSError((1 << 64) - result, f"{name} of the guest")
        return result
