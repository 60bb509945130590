# SPDX-License-Identifier: GPL-2.0-or-later
"""Per-CPU variables of modules: ``percpu_modalloc`` and ``percpu_modfree`` of kernel/module/main.c."""

from __future__ import annotations

import errno

from klpfs.machine.elf import ElfError, ModuleImage
from klpfs.machine.kernel.base import Base
from klpfs.machine.memory import PAGE_SIZE

_KERN_WARNING = 4


class ModulePerCpu:
    """The part of the CPU's per-CPU area that is reserved for modules (`PERCPU_MODULE_RESERVE` bytes)."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self.smp = "SMP" in base.computer.image.vermagic.split()
        """True if the kernel has per-CPU variables (CONFIG_SMP); else they are ordinary data."""

    def alloc(self, elf: ModuleImage) -> tuple[int, int]:
        """``percpu_modalloc``: allocate and initialise the per-CPU variables of a module. Returns their
        address without the offset of the CPU, and their size; both 0 if there are none. Raises
        ElfError(ENOMEM)."""
        if not elf.percpu:
            return 0, 0
        section, area = elf.sections[elf.percpu], self._computer.per_cpu_area
        try:
            base = area.alloc(section.size, min(max(section.addralign, 1), PAGE_SIZE))
        except MemoryError:
            raise ElfError(
                errno.ENOMEM,
                f"{elf.name}: Could not allocate {section.size} bytes percpu data",
                level=_KERN_WARNING,
            ) from None
        data = bytes(section.data).ljust(section.size, b"\0")
        self._computer.memory.write(base + self._computer.per_cpu_offset, data)
        return base, section.size

    def free(self, base: int, size: int) -> None:
        """``percpu_modfree``: free what `alloc` has returned."""
        if size:
            self._computer.per_cpu_area.free(base, size)
