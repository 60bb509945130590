# SPDX-License-Identifier: GPL-2.0-or-later
"""A module in guest memory: ``struct module`` and what the loader knows about it. include/linux/module.h."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from klpfs.machine import limits
from klpfs.machine.elf import Layout, ModuleImage
from klpfs.machine.image import Export, Symbol
from klpfs.machine.kernel.module.version import ModVersions
from klpfs.machine.kernel.sched.wait import ActiveReferences, Completion
from klpfs.machine.structs import Space, Struct
from klpfs.machine.symbols import Region

MODULE_REF_BASE = 1
"""Reference count of a live module that is not in use."""
_GPL_COMPATIBLE = {
    "GPL", "GPL v2", "GPL and additional rights",
    "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL",
}  # fmt: skip


class State(enum.IntEnum):
    """``enum module_state``."""

    LIVE = 0
    COMING = 1
    GOING = 2
    UNFORMED = 3


@dataclass(eq=False)
class LoadedModule:
    """A module that is being loaded, is live, or is being unloaded. ``struct`` is the struct module in its
    memory, which guest code reads."""

    elf: ModuleImage
    arguments: str = ""
    """Parameters as one line, ``name=value`` separated by blanks (``mod->args``)."""
    taints: int = 0
    placed: bool = False
    struct: Struct = field(init=False)
    plan: Layout = field(init=False)
    core_base: int = 0
    init_base: int = 0
    percpu: tuple[int, int] = (0, 0)
    """Address of its per-CPU variables before the offset of the CPU is added, and their size in bytes."""
    addresses: dict[int, int] = field(default_factory=dict)
    """Address of each section, by section index."""
    versions: ModVersions = field(init=False)
    values: list[int] = field(default_factory=list)
    """Final value of each symbol, by symbol index."""
    exports: dict[str, Export] = field(default_factory=dict)
    uses: list[LoadedModule] = field(default_factory=list)
    users: list[LoadedModule] = field(default_factory=list)
    ftrace_sites: list[int] = field(default_factory=list)
    bug_table: tuple[int, int] | None = None
    jump_table: tuple[int, int] = (0, 0)
    exception_table: tuple[int, int] = (0, 0)
    orc_tables: tuple[range, range] = (range(0), range(0))
    finished: Completion = field(default_factory=Completion)
    """Done when the module is live, or has been freed."""
    params_in_use: ActiveReferences = field(default_factory=ActiveReferences)
    """References of the tasks that read or write its parameters in sysfs."""

    @property
    def name(self) -> str:
        """The module name, with underscores."""
        return self.elf.name

    @property
    def refcount(self) -> int:
        """``module_refcount``: -1 once it is being unloaded."""
        return int(self.struct.refcnt.counter) - MODULE_REF_BASE

    @property
    def is_gpl(self) -> bool:
        """``license_is_gpl_compatible``: True if the module may use GPL-only symbols."""
        return (self.elf.modinfo.get("license") or "unspecified") in _GPL_COMPATIBLE

    def modinfo(self, tag: str) -> str | None:
        """Return the first value of a tag in .modinfo, or None."""
        return self.elf.modinfo.get(tag)

    @property
    def core_size(self) -> int:
        """Size in bytes of the part that stays after init."""
        return self.plan.core.size

    @property
    def init_size(self) -> int:
        """Size in bytes of the part that is freed after init."""
        return self.plan.init.size

    @property
    def core_regions(self) -> list[Region]:
        """The memory that stays."""
        return [Region(self.core_base, self.core_size, self.plan.core.text_size)]

    @property
    def regions(self) -> list[Region]:
        """The memory regions that it occupies now."""
        regions = self.core_regions
        if self.init_base:
            regions.append(Region(self.init_base, self.init_size, self.plan.init.text_size))
        return regions

    def _symbols(self, indexes: Iterator[int]) -> list[Symbol]:
        found = []
        for i in indexes:
            symbol = self.elf.symbols[i]
            kind = self.elf.kind(symbol)
            if symbol.name in self.exports:
                kind = kind.upper()
            found.append(Symbol(symbol.name, self.values[i], symbol.size, kind))
        return found

    @property
    def symbols(self) -> list[Symbol]:
        """Its symbol table while init runs."""
        return self._symbols(iter(range(len(self.elf.symbols))))

    @property
    def core_symbols(self) -> list[Symbol]:
        """Its symbol table without the symbols of the init part."""
        return self._symbols(i for i in range(len(self.elf.symbols)) if self.elf.is_core(i))

    @property
    def section_addresses(self) -> list[tuple[str, int]]:
        """Name and address of each section that is in memory and not empty."""
        return [
            (section.name, self.addresses[section.index])
            for section in self.elf.sections
            if section.index in self.addresses and section.size
        ]

    def params(self, space: Space) -> list[Struct]:
        """Return a view of each of its ``struct kernel_param``."""
        section = self.elf.find("__param")
        if section is None or section.index not in self.addresses or section.size > limits.TABLE:
            return []
        size = space.types.sizeof("struct kernel_param")
        base = self.addresses[section.index]
        return [
            space.view("struct kernel_param", base + i * size) for i in range(section.size // size)
        ]
