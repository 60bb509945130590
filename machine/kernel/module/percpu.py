# SPDX-License-Identifier: GPL-2.0-or-later
"""The per-CPU variables of modules: ``percpu_modalloc`` and ``percpu_modfree`` of kernel/module/main.c."""

from __future__ import annotations

import errno

from klpfs.machine.elf import ElfError, ModuleImage
from klpfs.machine.kernel.base import Base
from klpfs.machine.memory import PAGE_SIZE

_KERN_WARNING = 4


class ModulePerCpu:
    """Gives each module its part of the one CPU's area, which has room for `PERCPU_MODULE_RESERVE`."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self.smp = "SMP" in base.computer.image.vermagic.split()
        """Whether the kernel has per-CPU variables; else they are data like other."""

    def alloc(self, elf: ModuleImage) -> tuple[int, int]:
        """The address that its variables are linked at, and their bytes, which are copied there; both 0 if
        it has none. Raises ElfError(ENOMEM)."""
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
        """Give back what `alloc` gave."""
        if size:
            self._computer.per_cpu_area.free(base, size)
