# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of a module that the kernel uses while the module is loaded: symbols, call sites, bug entries,
branches, unwind tables and exception fixups. ``complete_formation`` and ``free_module``,
kernel/module/main.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.kernel.module.subscribers import ModuleSubscriber, ModuleSubscribers, Stage
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.kernel.trace.jump_label import JumpLabels


def subscribe(
    subscribers: ModuleSubscribers, base: Base, *, ftrace: Ftrace, jump_labels: JumpLabels
) -> None:
    """Add the subscribers that register these tables and remove them."""
    tables = _Tables(base, ftrace)
    subscribers.add(
        Stage.SYMBOLS,
        ModuleSubscriber(
            coming=tables.add_symbols, live=tables.keep_core_symbols, freed=tables.remove_symbols
        ),
    )
    subscribers.add(
        Stage.FTRACE,
        ModuleSubscriber(
            coming=lambda module: ftrace.add_sites(module.ftrace_sites),
            live=tables.remove_init_sites,
            freed=tables.remove_sites,
        ),
    )
    subscribers.add(Stage.BUGS, ModuleSubscriber(coming=tables.add_bugs, freed=tables.remove_bugs))
    subscribers.add(
        Stage.JUMP_LABELS,
        ModuleSubscriber(
            coming=lambda module: jump_labels.add(module.jump_table),
            freed=lambda module: jump_labels.remove(module.jump_table),
        ),
    )
    subscribers.add(
        Stage.UNWINDER,
        ModuleSubscriber(
            coming=lambda module: base.stack.add_module(module.name, *module.orc_tables),
            freed=lambda module: base.stack.remove_module(module.name),
        ),
    )
    subscribers.add(
        Stage.EXCEPTIONS,
        ModuleSubscriber(coming=tables.add_exceptions, freed=tables.remove_exceptions),
    )


class _Tables:
    """Registers and removes the tables of modules that need more than one call."""

    def __init__(self, base: Base, ftrace: Ftrace) -> None:
        self._symbols = base.computer.symbols
        self._bugs = base.bugs
        self._traps = base.traps
        self._ftrace = ftrace

    def add_symbols(self, module: LoadedModule) -> None:
        self._symbols.add_module(module.name, module.symbols, module.regions)

    def keep_core_symbols(self, module: LoadedModule) -> None:
        self._symbols.add_module(module.name, module.core_symbols, module.core_regions)

    def remove_symbols(self, module: LoadedModule) -> None:
        self._symbols.remove_module(module.name)

    def remove_init_sites(self, module: LoadedModule) -> None:
        self._ftrace.remove_sites(module.init_base, module.init_base + module.init_size)

    def remove_sites(self, module: LoadedModule) -> None:
        self._ftrace.remove_sites(module.core_base, module.core_base + module.core_size)
        self.remove_init_sites(module)

    def add_bugs(self, module: LoadedModule) -> None:
        if module.bug_table:
            self._bugs.tables.append(module.bug_table)

    def remove_bugs(self, module: LoadedModule) -> None:
        if module.bug_table in self._bugs.tables:
            self._bugs.tables.remove(module.bug_table)

    def add_exceptions(self, module: LoadedModule) -> None:
        if module.exception_table[0]:
            self._traps.exception_tables.add(*module.exception_table)

    def remove_exceptions(self, module: LoadedModule) -> None:
        self._traps.exception_tables.remove(module.exception_table[0])
