# SPDX-License-Identifier: GPL-2.0-or-later
"""A computer with a kernel image in its memory, on which the kernel services run."""

from __future__ import annotations

from dataclasses import replace

from klpfs.machine.adapter import Adapter
from klpfs.machine.btf import Types
from klpfs.machine.cpu import Cpu
from klpfs.machine.extents import Extents
from klpfs.machine.image import Image, Segment
from klpfs.machine.memory import (
    MODULES_END,
    MODULES_VADDR,
    PAGE_OFFSET,
    PAGE_SIZE,
    START_KERNEL_MAP,
    VMALLOC_END,
    VMALLOC_START,
    Memory,
    page_align,
)
from klpfs.machine.structs import Space, Struct
from klpfs.machine.symbols import SymbolTable

LOAD_PHYSICAL = 0x1000000
"""The physical address of the kernel text (CONFIG_PHYSICAL_START)."""
PERCPU_MODULE_RESERVE = 8192
"""The size of a CPU's area for per-CPU variables of modules in bytes, include/linux/percpu.h."""


class Computer:
    """The memory, the processor, the types and the symbols of one kernel image.

    ``memory_size`` is in bytes. ``slice_instructions`` is that of `klpfs.machine.cpu.Cpu`.
    """

    def __init__(self, image: Image, *, memory_size: int, slice_instructions: int = 0) -> None:
        self.image = replace(image, segments=[s._replace(data=b"") for s in image.segments])
        """The image, without the content of its segments, which is in the memory."""
        self.memory = Memory(memory_size)
        self.symbols = SymbolTable()
        self.symbols.add_image(image.symbols)
        self.space = Space(Types(image.btf), self.memory)
        self.modules_area = Extents(MODULES_VADDR, MODULES_END)
        self.vmalloc_area = Extents(VMALLOC_START, VMALLOC_END)
        self._mapped: dict[int, int] = {}  # physical by virtual address, out of reach of guest code
        self._load(image.segments)
        self.per_cpu_offset = self._copy_per_cpu(image.per_cpu)
        """The distance from the link address of a per-CPU variable to its address: the GS base."""
        linked = len(image.per_cpu) if self.per_cpu_offset else 0
        self.per_cpu_area = Extents(linked, linked + PERCPU_MODULE_RESERVE if linked else 0)
        """The link addresses that are free for the per-CPU variables of modules. There are none if
        the image's own variables are linked at their final addresses."""
        self.adapter = Adapter(self.space, self.symbols, self.per_cpu_offset)
        """The members and symbols that have different names in different kernels."""
        self.cpu = Cpu(
            self.memory, gs_base=self.per_cpu_offset, slice_instructions=slice_instructions
        )

    def _load(self, segments: list[Segment]) -> None:
        end = max(segment.vaddr + segment.memsz for segment in segments)
        self.memory.reserve(LOAD_PHYSICAL, end - START_KERNEL_MAP)
        for segment in segments:
            paddr = segment.vaddr - START_KERNEL_MAP + LOAD_PHYSICAL
            self.memory.ram[paddr : paddr + len(segment.data)] = segment.data
            self._map_segment(segment, booting=True)

    def _map_segment(self, segment: Segment, *, booting: bool) -> None:
        """Map a segment. Read-only data is writable during boot, as parts of it are set then."""
        first = segment.vaddr & -PAGE_SIZE
        paddr = first - START_KERNEL_MAP + LOAD_PHYSICAL
        size = page_align(segment.vaddr + segment.memsz) - first
        writable = segment.writable or (booting and not segment.executable)
        self.memory.map(first, paddr, size, writable=writable, executable=segment.executable)
        if not writable:  # it is not writable through the direct map either
            self.memory.map(PAGE_OFFSET + paddr, paddr, size)

    def mark_rodata_ro(self) -> None:
        """Write-protect read-only data, at the end of boot."""
        for segment in self.image.segments:
            if not segment.writable and not segment.executable:
                self._map_segment(segment, booting=False)

    def _copy_per_cpu(self, template: bytes) -> int:
        """Make the per-CPU area of the one CPU, with room for modules; return its offset."""
        if not template:
            return 0
        paddr = self.memory.alloc_pages(len(template) + PERCPU_MODULE_RESERVE)
        self.memory.ram[paddr : paddr + len(template)] = template
        return PAGE_OFFSET + paddr

    def symbol(self, name: str) -> int:
        """Return the address of a symbol of the kernel image. Raise LookupError."""
        address = self.symbols.lookup(name)
        if address is None:
            raise LookupError(f"the kernel image has no symbol {name}")
        return address

    def per_cpu(self, name: str) -> int:
        """Return the address of a per-CPU variable of the one CPU. Raise LookupError."""
        return self.symbol(name) + self.per_cpu_offset

    def variable(self, type_name: str, name: str) -> Struct:
        """Return a view of the global variable ``name`` of the struct type ``type_name``.

        Raise LookupError.
        """
        view: Struct = self.space.view(type_name, self.symbol(name))
        return view

    # -- memory with its own mapping ------------------------------------------------------------

    def map_pages(
        self,
        area: Extents,
        size: int,
        *,
        writable: bool = True,
        executable: bool = False,
        guard: bool = True,
    ) -> int:
        """Map zeroed pages for ``size`` bytes at a free address in ``area``; return the address.

        With ``guard``, an unmapped guard page is before and behind them. Raise MemoryError.
        """
        size, edge = page_align(size), PAGE_SIZE if guard else 0
        paddr = self.memory.alloc_pages(size)
        try:
            vaddr = area.alloc(size + 2 * edge, PAGE_SIZE) + edge
            try:
                self.memory.map(vaddr, paddr, size, writable=writable, executable=executable)
            except MemoryError:  # for a page table
                self.memory.unmap(vaddr, size)
                area.free(vaddr - edge, size + 2 * edge)
                raise
        except MemoryError:
            self.memory.free_pages(paddr, size)
            raise
        self._mapped[vaddr] = paddr
        return vaddr

    def unmap_pages(self, area: Extents, vaddr: int, size: int, *, guard: bool = True) -> None:
        """Undo `map_pages`. ``area``, ``size`` and ``guard`` must be those of that call."""
        size, edge = page_align(size), PAGE_SIZE if guard else 0
        self.cpu.code_changed(vaddr, size)  # before the unmapping: it looks up the physical pages
        self.memory.free_pages(self._mapped.pop(vaddr), size)
        self.memory.unmap(vaddr, size)
        area.free(vaddr - edge, size + 2 * edge)
