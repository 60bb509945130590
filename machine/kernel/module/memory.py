# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a module is, as its ``struct module`` says: ``core_layout`` and ``init_layout``, or ``mem[]``.
include/linux/module.h."""

from __future__ import annotations

from typing import Literal

from klpfs.machine.adapter import Adapter
from klpfs.machine.elf import Part
from klpfs.machine.structs import Field, Struct

PartName = Literal["core", "init"]

_AREAS: dict[PartName, tuple[str, ...]] = {
    "core": ("module.core", "module.core.text", "module.core.rodata", "module.core.ro_after_init",
             "module.core.data"),
    "init": ("module.init", "module.init.text", "module.init.rodata", "module.init.data"),
}  # fmt: skip
"""Members with ``base`` and ``size``; a kernel has the first one of each part, or the others."""

_SIZES: dict[PartName, tuple[str, ...]] = {
    "core": ("module.core.text_size", "module.core.ro_size"),
    "init": ("module.init.text_size", "module.init.ro_size"),
}


class ModuleMemory:
    """Reads and writes the members that say where a module is in the struct modules of one kernel."""

    def __init__(self, adapter: Adapter) -> None:
        self._base = adapter.field("module.base")
        self._areas = {part: _found(adapter, names) for part, names in _AREAS.items()}
        self._sizes = {part: _found(adapter, names) for part, names in _SIZES.items()}

    def set(self, struct: Struct, part: PartName, base: int, sizes: Part) -> None:
        """Say that a part of the module is at ``base``."""
        text, ro = sizes.text_size, sizes.ro_size
        ranges = {
            f"module.{part}": (0, sizes.size),
            f"module.{part}.text": (0, text),
            f"module.{part}.rodata": (text, ro),
            f"module.{part}.ro_after_init": (ro, sizes.ro_after_init_size),
            f"module.{part}.data": (sizes.ro_after_init_size, sizes.size),
        }
        for name, area in self._areas[part].items():
            start, end = ranges[name]
            view = area.get(struct)
            view.base, view.size = base + start if end > start else 0, end - start
        for name, field in self._sizes[part].items():
            field.set(struct, text if name.endswith("text_size") else ro)

    def clear_init(self, struct: Struct) -> None:
        """Say that the init part has been freed."""
        for area in self._areas["init"].values():
            view = area.get(struct)
            view.base, view.size = 0, 0

    def base(self, struct: Struct) -> int:
        """Return the address of the text of the module."""
        return int(self._base.get(struct))

    def within_core(self, address: int, struct: Struct) -> bool:
        """``within_module_core``: return whether an address is in what stays of the module after init."""
        areas = (area.get(struct) for area in self._areas["core"].values())
        return any(int(area.base) <= address < int(area.base) + area.size for area in areas)

    def size(self, struct: Struct, part: PartName) -> int:
        """Return the size of a part of the module in bytes."""
        return sum(int(area.get(struct).size) for area in self._areas[part].values())


def _found(adapter: Adapter, names: tuple[str, ...]) -> dict[str, Field]:
    fields = {name: adapter.find(name) for name in names}
    return {name: field for name, field in fields.items() if field is not None}
