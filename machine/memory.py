# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's RAM and the page tables in it.

The page tables alone decide what is mapped where. The emulated CPU walks them, and so does this
module; its cache of translations is emptied by every change of a mapping. The address space is
that of Linux, Documentation/arch/x86/x86_64/mm.rst.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from klpfs.machine.extents import Extents

PAGE_SIZE = 4096
LARGE_PAGE = 2 << 20

PAGE_OFFSET = 0xFFFF888000000000
VMALLOC_START, VMALLOC_END = 0xFFFFC90000000000, 0xFFFFC91000000000
START_KERNEL_MAP = 0xFFFFFFFF81000000
MODULES_VADDR, MODULES_END = 0xFFFFFFFFA0000000, 0xFFFFFFFFFF000000

PRESENT, WRITE, LARGE, NX = 1, 2, 0x80, 1 << 63
_FRAME = 0x000FFFFFFFFFF000
_FIRST_PAGE = 0x120000
"""The first physical address to allocate. A PC has holes below 0x100000. The distance to it keeps
the first slabs and the data of a small kernel in different places of unicorn's TLB, which has one
place for all pages whose numbers have the same low six bits."""
_ENTRY = struct.Struct("<Q")
_MADVISE_MIN = 1 << 20  # bytes from which on madvise() clears pages faster than a copy of zeroes


class PageFault(Exception):
    """Python accessed an unmapped address. ``address`` is that of the first unmapped byte."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no page at {address:#018x}")
        self.address = address & (1 << 64) - 1


def is_canonical(address: int) -> bool:
    """Return whether an address is canonical: its bits 63 to 47 are equal."""
    return (address + (1 << 47)) & ((1 << 64) - 1) < 1 << 48


class Memory:
    """RAM of ``size`` bytes and one kernel address space over it.

    `read` and `write` take virtual addresses and ignore page protection, as kernel services need
    to write to read-only memory. Guest code cannot.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.ram = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._pages = Extents(_FIRST_PAGE, size)
        self._frames: dict[int, int] = {}
        self.flush_tlb: Callable[[], None] = lambda: None
        self.cr3 = self._alloc_table()
        self.map(PAGE_OFFSET, 0, size, writable=True)

    # -- physical pages ---------------------------------------------------------------------------

    @property
    def free_bytes(self) -> int:
        """The size of the free RAM in bytes."""
        return self._pages.available

    def alloc_pages(self, size: int, align: int = PAGE_SIZE) -> int:
        """Allocate zeroed, physically contiguous pages for ``size`` bytes.

        Return the physical address, a multiple of ``align``. Raise MemoryError.
        """
        size = page_align(size)
        paddr = self._pages.alloc(size, align)
        if size >= _MADVISE_MIN:
            self.ram.madvise(mmap.MADV_DONTNEED, paddr, size)
        else:
            self.ram[paddr : paddr + size] = bytes(size)
        return paddr

    def reserve(self, paddr: int, size: int) -> None:
        """Allocate the physical pages at ``paddr``, for the kernel image. Raise MemoryError."""
        self._pages.reserve(paddr, page_align(size))

    def free_pages(self, paddr: int, size: int) -> None:
        """Free physical pages."""
        self._pages.free(paddr, page_align(size))

    # -- page tables ------------------------------------------------------------------------------

    def _alloc_table(self) -> int:
        paddr = self._pages.alloc(PAGE_SIZE, PAGE_SIZE)
        self.ram[paddr : paddr + PAGE_SIZE] = bytes(PAGE_SIZE)
        return paddr

    def _slot(self, vaddr: int, level: int, create: bool) -> int | None:
        """Return the physical address of the page-table entry for ``vaddr`` at ``level``.

        Level 1 has 4 KiB pages, level 2 has 2 MiB pages. Without ``create``, return None if a table
        on the way is missing. Guest code may have overwritten the tables, so one that is outside of
        the RAM counts as missing.
        """
        table = self.cr3
        for at in (4, 3, 2, 1):
            slot = table + ((vaddr >> (12 + 9 * (at - 1))) & 511) * 8
            if at == level:
                return slot
            (entry,) = _ENTRY.unpack_from(self.ram, slot)
            if entry & PRESENT and entry & LARGE and at == 2:
                if not create:
                    return None
                entry = self._split(slot, entry)
            if not entry & PRESENT or entry & _FRAME >= self.size:
                if not create:
                    return None
                entry = self._alloc_table() | PRESENT | WRITE
                _ENTRY.pack_into(self.ram, slot, entry)
            table = entry & _FRAME
        raise AssertionError(f"there is no level {level}")

    def _split(self, slot: int, entry: int) -> int:
        """Replace a 2 MiB page by 512 pages of 4 KiB with the same protection."""
        table = self._alloc_table()
        first, bits = entry & _FRAME & ~(LARGE_PAGE - 1), entry & (NX | WRITE | PRESENT)
        for i in range(512):
            _ENTRY.pack_into(self.ram, table + i * 8, (first + i * PAGE_SIZE) | bits)
        entry = table | PRESENT | WRITE
        _ENTRY.pack_into(self.ram, slot, entry)
        return entry

    def map(
        self,
        vaddr: int,
        paddr: int,
        size: int,
        *,
        writable: bool = False,
        executable: bool = False,
    ) -> None:
        """Map ``size`` bytes, rounded up to pages, at ``vaddr`` to the physical address ``paddr``.

        Raise MemoryError if there is no memory for a page table.
        """
        bits = PRESENT | (WRITE if writable else 0) | (0 if executable else NX)
        end = vaddr + page_align(size)
        while vaddr < end:
            large = not (vaddr | paddr) % LARGE_PAGE and end - vaddr >= LARGE_PAGE
            slot = self._slot(vaddr, 2 if large else 1, create=True)
            assert slot is not None
            _ENTRY.pack_into(self.ram, slot, paddr | bits | (LARGE if large else 0))
            step = LARGE_PAGE if large else PAGE_SIZE
            vaddr, paddr = vaddr + step, paddr + step
        self._changed()

    def unmap(self, vaddr: int, size: int) -> None:
        """Remove 4 KiB mappings. Unmapped pages are left alone."""
        for page in range(vaddr, vaddr + page_align(size), PAGE_SIZE):
            slot = self._slot(page, 1, create=False)
            if slot is not None:
                _ENTRY.pack_into(self.ram, slot, 0)
        self._changed()

    def protect(self, vaddr: int, size: int, *, writable: bool, executable: bool) -> None:
        """Change the protection of mapped pages (``set_memory_ro`` etc.). Raise PageFault."""
        first = vaddr & -PAGE_SIZE
        for page in range(first, page_align(vaddr + size), PAGE_SIZE):
            self.map(
                page, self.translate(page), PAGE_SIZE, writable=writable, executable=executable
            )

    def _changed(self) -> None:
        self._frames.clear()
        self.flush_tlb()

    def walk(self, vaddr: int) -> list[int]:
        """Return the page-table entries for ``vaddr``, from the top level down.

        The last one maps a page, or is not present.
        """
        found: list[int] = []
        for level in (4, 3, 2, 1):
            slot = self._slot(vaddr, level, create=False)
            entry = _ENTRY.unpack_from(self.ram, slot)[0] if slot is not None else 0
            found.append(entry)
            if not entry & PRESENT or (level < 4 and entry & LARGE):
                break
        return found

    def entry(self, vaddr: int) -> int:
        """Return the page-table entry that maps ``vaddr``, or 0."""
        if not is_canonical(vaddr):
            return 0
        for level in (2, 1):
            slot = self._slot(vaddr, level, create=False)
            if slot is not None:
                (entry,) = _ENTRY.unpack_from(self.ram, slot)
                if not entry & PRESENT:
                    return 0
                if level == 1 or entry & LARGE:
                    return int(entry)
        return 0

    def translate(self, vaddr: int) -> int:
        """Return the physical address of ``vaddr``. Raise PageFault."""
        page = vaddr >> 12
        frame = self._frames.get(page)
        if frame is None:
            entry = self.entry(vaddr)
            if not entry:
                raise PageFault(vaddr)
            frame = entry & _FRAME
            if entry & LARGE:
                frame = (frame & ~(LARGE_PAGE - 1)) | (vaddr & (LARGE_PAGE - 1) & -PAGE_SIZE)
            if frame >= self.size:  # guest code overwrote the entry
                raise PageFault(vaddr)
            self._frames[page] = frame
        return frame | (vaddr & (PAGE_SIZE - 1))

    # -- access -----------------------------------------------------------------------------------

    def read(self, vaddr: int, size: int) -> bytes:
        """Return ``size`` bytes from a virtual address. Raise PageFault."""
        paddr = self.translate(vaddr)
        room = PAGE_SIZE - (vaddr & (PAGE_SIZE - 1))
        if size <= room:
            return self.ram[paddr : paddr + size]
        parts = [self.ram[paddr : paddr + room]]
        while room < size:
            paddr, take = self.translate(vaddr + room), min(PAGE_SIZE, size - room)
            parts.append(self.ram[paddr : paddr + take])
            room += take
        return b"".join(parts)

    def write(self, vaddr: int, data: bytes) -> None:
        """Store ``data`` at a virtual address.

        Raise PageFault at the first unmapped page; the pages before it are written.
        """
        done, size = 0, len(data)
        paddr = self.translate(vaddr) if size else 0
        if size <= PAGE_SIZE - (vaddr & (PAGE_SIZE - 1)):
            self.ram[paddr : paddr + size] = data
            return
        while done < size:
            at = vaddr + done
            paddr = self.translate(at)
            take = min(PAGE_SIZE - (at & (PAGE_SIZE - 1)), size - done)
            self.ram[paddr : paddr + take] = data[done : done + take]
            done += take


def page_align(size: int) -> int:
    """Return ``size`` rounded up to whole pages."""
    return (size + PAGE_SIZE - 1) & -PAGE_SIZE
