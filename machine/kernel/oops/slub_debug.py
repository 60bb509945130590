# SPDX-License-Identifier: GPL-2.0-or-later
"""Error reports of the allocator: mm/slub.c with slub_debug=FP, mm/slab_common.c, mm/page_alloc.c,
mm/vmalloc.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.mm.slab import POISON_FREE
from klpfs.machine.kernel.oops.taint import Taint
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from klpfs.machine.memory import PAGE_SIZE

_LINE = 16
_SHOWN = 64
_RULE = 77


class SlubDebug:
    """Reports memory errors and failed allocations of ``slab``."""

    def __init__(self, base: Base) -> None:
        self._memory = base.computer.memory
        self._sched = base.sched
        self._printk = base.printk
        self._dumpstack = base.dumpstack
        self._bugs = base.bugs
        self._tainted = base.tainted
        self._warned: set[str] = set()
        base.slab.reports.append(self)

    def _slab_bug(self, cache: str, problem: str) -> None:
        """``slab_bug``: log the head of a report."""
        self._printk(LOGLEVEL_ERR, "=" * _RULE)
        self._printk(LOGLEVEL_ERR, f"BUG {cache} ({self._tainted}): {problem}")
        self._printk(LOGLEVEL_ERR, "-" * _RULE + "\n")

    def _trailer(self, address: int, room: int) -> None:
        """``print_trailer``: log the object and a call trace, and taint the kernel."""
        self._printk(LOGLEVEL_ERR, f"Object {address:#018x} @offset={address % PAGE_SIZE}")
        data = self._memory.read(address, min(room, _SHOWN))
        for at in range(0, len(data), _LINE):
            line = data[at : at + _LINE]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
            self._printk(LOGLEVEL_ERR, f"Object   {address + at:016x}: {line.hex(' '):<47}  {text}")
        self._dumpstack.dump_stack()
        self._tainted.add(Taint.BAD_PAGE)

    def already_free(self, cache: str, address: int, room: int) -> None:
        """``free_consistency_checks``: report a double free, which has no effect."""
        self._slab_bug(cache, "Object already free")
        self._trailer(address, room)
        self._printk(LOGLEVEL_ERR, f"FIX {cache}: Object at {address:#018x} not freed")

    def invalid_pointer(self, cache: str, address: int) -> None:
        """``free_consistency_checks``: report a kfree() of an address in the middle of an object."""
        self._slab_bug(cache, f"Invalid object pointer {address:#018x}")
        self._dumpstack.dump_stack()
        self._tainted.add(Taint.BAD_PAGE)
        self._printk(LOGLEVEL_ERR, f"FIX {cache}: Object at {address:#018x} not freed")

    def overwritten(self, cache: str, address: int, data: bytes) -> None:
        """``check_bytes_and_report``: report a write after free, found when the object is allocated."""
        bad = [i for i, byte in enumerate(data) if byte != POISON_FREE]
        first, last = address + bad[0], address + bad[-1]
        self._slab_bug(cache, "Poison overwritten")
        self._printk(
            LOGLEVEL_ERR,
            f"{first:#018x}-{last:#018x} @offset={first % PAGE_SIZE}. First byte "
            f"{data[bad[0]]:#x} instead of {POISON_FREE:#x}",
        )
        self._trailer(address, len(data))
        self._printk(
            LOGLEVEL_ERR,
            f"FIX {cache}: Restoring Poison {first:#018x}-{last:#018x}={POISON_FREE:#x}",
        )

    def not_allocated(self, address: int) -> None:
        """``free_large_kmalloc``: warn about a kfree() of an address that was never allocated."""
        if self._once("kfree"):
            self._bugs.warn("mm/slab_common.c", 931, "free_large_kmalloc")
            self._printk(LOGLEVEL_WARNING, f"object pointer: {address:#018x}")

    def nonexistent_vm_area(self, address: int) -> None:
        """``__vunmap``: warn about a vfree() of an address that was never allocated."""
        self._bugs.warn(
            "mm/vmalloc.c",
            2699,
            "__vunmap",
            f"Trying to vfree() nonexistent vm area ({address:#018x})",
        )

    def too_large(self) -> None:
        """``__alloc_pages``: warn about an order above the limit."""
        if self._once("order"):
            self._bugs.warn("mm/page_alloc.c", 5534, "__alloc_pages")

    def no_pages(self, size: int) -> None:
        """``warn_alloc``: report a failed kmalloc()."""
        order = max(size - 1, 0) // PAGE_SIZE
        self._warn_alloc(f"page allocation failure: order:{order.bit_length()}")

    def no_vmalloc(self, size: int, *, exceeds: bool) -> None:
        """``__vmalloc_node_range``: report a failed vmalloc()."""
        reason = "exceeds total pages" if exceeds else "failed to allocate pages"
        self._warn_alloc(f"vmalloc error: size {size}, {reason}")

    def _warn_alloc(self, problem: str) -> None:
        """``warn_alloc``. Each message is logged once; Linux has a rate limit."""
        comm = self._sched.current.comm
        mode = "mode:0xcc0(GFP_KERNEL), nodemask=(null)"
        if self._once(problem):
            self._printk(LOGLEVEL_WARNING, f"{comm}: {problem}, {mode}")
            self._dumpstack.dump_stack()

    def _once(self, key: str) -> bool:
        """Return True at the first call with this key."""
        if key in self._warned or len(self._warned) > _SHOWN:
            return False
        self._warned.add(key)
        return True
