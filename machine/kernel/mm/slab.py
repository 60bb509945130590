# SPDX-License-Identifier: GPL-2.0-or-later
"""Dynamic memory of the guest: kmalloc, vmalloc, and a record of live objects. mm/slub.c, mm/vmalloc.c.

Objects of up to half a page come from slabs, which are pages of the direct map cut into equal parts. Larger
objects get whole pages.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.service import U32, U64, Ptr, service
from klpfs.machine.memory import PAGE_OFFSET, PAGE_SIZE, page_align

GFP_ZERO = 0x100
ZERO_SIZE_PTR = 16
"""Return value of kmalloc(0), include/linux/slab.h."""
KMALLOC_MAX_SIZE = 4 << 20
"""Largest size for kmalloc() in bytes, include/linux/slab.h."""
_MAX_ORDER = 11
_BYTES_PER_OBJECT = 512
"""Bytes of RAM per live object. This limits their number, because each also takes memory of the host."""
_SIZES = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048)
POISON_FREE = 0x6B
"""Value of each byte of free memory, include/linux/poison.h."""


class Allocation(NamedTuple):
    """A live object: the requested size in bytes, the allocated bytes, and the function that asked for it."""

    size: int
    room: int
    owner: str


class Reports(Protocol):
    """Error reports of the allocator (`klpfs.machine.kernel.oops.slub_debug`)."""

    def already_free(self, cache: str, address: int, room: int, /) -> None:
        """Report a double free."""

    def invalid_pointer(self, cache: str, address: int, /) -> None:
        """Report a kfree() of an address in the middle of an object."""

    def overwritten(self, cache: str, address: int, data: bytes, /) -> None:
        """Report a write to free memory, which now holds ``data``."""

    def not_allocated(self, address: int, /) -> None:
        """Report a kfree() of an address that was never allocated."""

    def nonexistent_vm_area(self, address: int, /) -> None:
        """Report a vfree() of an address that was never allocated."""

    def too_large(self) -> None:
        """Report a kmalloc() of more than KMALLOC_MAX_SIZE bytes."""

    def no_pages(self, size: int, /) -> None:
        """Report a kmalloc() that failed for lack of memory."""

    def no_vmalloc(self, size: int, /, *, exceeds: bool) -> None:
        """Report a vmalloc() that failed. ``exceeds``: ``size`` is more than all memory."""


class Slab:
    """kmalloc(), vmalloc() and related functions. Addresses of kmalloc() are in the direct map."""

    def __init__(self, computer: Computer) -> None:
        self._computer = computer
        self._memory = computer.memory
        self._partial: dict[int, dict[int, list[int]]] = {size: {} for size in _SIZES}
        """Free objects of each slab that has some, by object size and address of the slab."""
        self._live: dict[int, Allocation] = {}
        self._vmalloced: dict[int, Allocation] = {}
        self._slabs: dict[int, tuple[int, list[int]]] = {}
        """Object size and free objects of each slab, by its address."""
        self._max_objects = computer.memory.size // _BYTES_PER_OBJECT
        self.reports: list[Reports] = []
        """Receivers of error reports."""

    # -- for services -----------------------------------------------------------------------------

    def alloc(self, size: int, owner: str) -> int:
        """Allocate ``size`` zeroed bytes. ``owner`` is recorded for leak checks. Raises MemoryError."""
        if size > KMALLOC_MAX_SIZE or len(self._live) >= self._max_objects:
            raise MemoryError(f"kmalloc of {size:#x} bytes")
        room = next((room for room in _SIZES if size <= room), 0)
        if room:
            address = self._alloc_from_slab(room)
            self._memory.write(address, bytes(room))
        else:
            room = page_align(size)
            address = PAGE_OFFSET + self._memory.alloc_pages(room)
        self._live[address] = Allocation(size, room, owner)
        return address

    def _alloc_from_slab(self, room: int) -> int:
        """Take an object of ``room`` bytes from a slab, and report it if its poison was overwritten."""
        partial = self._partial[room]
        if not partial:
            page = PAGE_OFFSET + self._memory.alloc_pages(PAGE_SIZE)
            self._memory.write(page, bytes([POISON_FREE]) * PAGE_SIZE)
            free = list(range(page + (PAGE_SIZE // room - 1) * room, page - 1, -room))
            self._slabs[page] = room, free
            partial[page] = free
        page, free = next(iter(partial.items()))
        address = free.pop()
        if not free:
            del partial[page]
        data = self._memory.read(address, room)
        if self.reports and data.count(POISON_FREE) != room:
            for reports in self.reports:
                reports.overwritten(f"kmalloc-{room}", address, data)
        return address

    def _free_to_slab(self, address: int, room: int) -> None:
        """Put an object back into its slab. Free slabs are released, except the last one of a size."""
        page = address & -PAGE_SIZE
        partial, (_, free) = self._partial[room], self._slabs[page]
        free.append(address)
        partial[page] = free
        if len(free) == PAGE_SIZE // room and len(partial) > 1:
            del partial[page], self._slabs[page]
            self._memory.free_pages(page - PAGE_OFFSET, PAGE_SIZE)

    def free(self, address: int) -> bool:
        """Free the object at ``address``. Returns False if there is none (a wild or double free)."""
        if address <= ZERO_SIZE_PTR:
            return True
        allocation = self._live.pop(address, None)
        if allocation is None:
            return False
        if allocation.room in self._partial:
            # The poison shows a use after free.
            self._memory.write(address, bytes([POISON_FREE]) * allocation.room)
            self._free_to_slab(address, allocation.room)
        else:
            self._memory.free_pages(address - PAGE_OFFSET, allocation.room)
        return True

    def allocations(self) -> dict[int, Allocation]:
        """Return all live objects by address, for leak checks."""
        return self._live | self._vmalloced

    def vmalloc_bytes(self, size: int, owner: str) -> int:
        """Map ``size`` zeroed bytes with a guard page at each end. Raises MemoryError."""
        address = self._computer.map_pages(self._computer.vmalloc_area, size)
        self._vmalloced[address] = Allocation(size, page_align(size), owner)
        return address

    # -- for the guest ----------------------------------------------------------------------------

    def _caller(self) -> str:
        """Return the name of the function that has called the current service."""
        return self._name(self._computer.space.read_u64(self._computer.cpu["rsp"]))

    def _name(self, address: int) -> str:
        found = self._computer.symbols.lookup_address(address)
        if found is None:
            return "?"
        symbol, _, module = found
        return f"{symbol.name} [{module}]" if module else symbol.name

    def _kmalloc(self, size: int, owner: str | None = None) -> int:
        if not size:
            return ZERO_SIZE_PTR
        try:
            return self.alloc(size, owner or self._caller())
        except MemoryError:
            for reports in self.reports:
                if size > KMALLOC_MAX_SIZE:
                    reports.too_large()
                else:
                    reports.no_pages(size)
            return 0

    def _vmalloc(self, size: int) -> int:
        try:
            return self.vmalloc_bytes(size, self._caller()) if size else 0
        except MemoryError:
            for reports in self.reports:
                reports.no_vmalloc(size, exceeds=size > self._memory.size)
            return 0

    @service("__kmalloc")
    def kmalloc(self, size: U64, _flags: U32) -> int:
        return self._kmalloc(size)

    @service("kvmalloc_node")
    def kvmalloc_node(self, size: U64, _flags: U32, _node: U32) -> int:
        """Use vmalloc() for sizes that are too large for kmalloc()."""
        return self._kmalloc(size) if size <= KMALLOC_MAX_SIZE else self._vmalloc(size)

    @service("__kmalloc_node")
    def kmalloc_node(self, size: U64, _flags: U32, _node: U32) -> int:
        return self._kmalloc(size)

    @service("__kmalloc_node_track_caller", embedded=False)
    def kmalloc_node_track_caller(self, size: U64, _flags: U32, _node: U32, caller: Ptr) -> int:
        """``caller`` is an address in the function that gets the memory, such as the caller of kstrdup()."""
        return self._kmalloc(size, self._name(caller))

    @service("kmalloc_large", embedded=False)
    def kmalloc_large(self, size: U64, _flags: U32) -> int:
        return self._kmalloc(size)

    @service("kmalloc_node_trace", embedded=False)
    def kmalloc_node_trace(self, _cache: Ptr, _flags: U32, _node: U32, size: U64) -> int:
        return self._kmalloc(size)

    @service("kmalloc_trace")
    def kmalloc_trace(self, _cache: Ptr, _flags: U32, size: U64) -> int:
        return self._kmalloc(size)

    @service("krealloc")
    def krealloc(self, address: Ptr, size: U64, _flags: U32) -> int:
        if not size:
            self.free(address)
            return ZERO_SIZE_PTR
        old = self._live.get(address)
        new = self._kmalloc(size)
        if new and old is not None:
            self._memory.write(new, self._memory.read(address, min(size, old.size)))
            self.free(address)
        elif new and address > ZERO_SIZE_PTR:
            self.kfree(address)
        return new

    @service("kfree")
    def kfree(self, address: Ptr) -> None:
        if not self.free(address):
            for reports in self.reports:
                self._bad_free(address, reports)

    def _bad_free(self, address: int, reports: Reports) -> None:
        """Report the kfree() of an address where no object is allocated. Raises PageFault if it is not
        mapped."""
        room, _ = self._slabs.get(address & -PAGE_SIZE, (0, []))
        if not room:
            self._memory.translate(address)  # the kernel reads the struct page, and would fault
            reports.not_allocated(address)
        elif address % PAGE_SIZE % room or address % PAGE_SIZE + room > PAGE_SIZE:
            reports.invalid_pointer(f"kmalloc-{room}", address)
        else:
            reports.already_free(f"kmalloc-{room}", address, room)

    @service("kvfree")
    def kvfree(self, address: Ptr) -> None:
        if address in self._vmalloced:
            self.vfree(address)
        else:
            self.kfree(address)

    @service("ksize")
    @service("__ksize", embedded=False)
    def ksize(self, address: Ptr) -> int:
        allocation = self._live.get(address)
        return allocation.room if allocation else 0

    @service("vmalloc", "vzalloc")
    def vmalloc(self, size: U64) -> int:
        return self._vmalloc(size)

    @service("vfree")
    def vfree(self, address: Ptr) -> None:
        allocation = self._vmalloced.pop(address, None)
        if allocation is not None:
            area = self._computer.vmalloc_area
            self._computer.unmap_pages(area, address, allocation.size)
        elif address:
            for reports in self.reports:
                reports.nonexistent_vm_area(address)

    @service("__alloc_percpu")
    @service("__alloc_percpu_gfp", embedded=False)
    def alloc_percpu(self, size: U64, _align: U64) -> int:
        """Return the per-CPU address; the CPU's copy is at the GS base plus this address."""
        try:
            return self.alloc(size, self._caller()) - self._computer.per_cpu_offset
        except MemoryError:
            return 0

    @service("free_percpu")
    def free_percpu(self, address: Ptr) -> None:
        if address:
            self.kfree((address + self._computer.per_cpu_offset) % (1 << 64))

    @service("__get_free_pages")
    def get_free_pages(self, _flags: U32, order: U32) -> int:
        return self._kmalloc(PAGE_SIZE << min(order, _MAX_ORDER))

    @service("free_pages")
    def free_pages(self, address: Ptr, _order: U32) -> None:
        self.kfree(address)
