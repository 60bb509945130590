# SPDX-License-Identifier: GPL-2.0-or-later
"""Construction of the module loader."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.kobject import KobjectTree
from klpfs.machine.kernel.module import tables
from klpfs.machine.kernel.module.check import LivepatchSupport
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.kernel.module.notifier import ModuleNotifiers
from klpfs.machine.kernel.module.params import Params
from klpfs.machine.kernel.module.relocations import FindSymbol, KlpRelocations
from klpfs.machine.kernel.module.subscribers import ModuleSubscribers, Stage
from klpfs.machine.kernel.module.sysfs import ModuleSysfs
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.trace.build import Trace


@dataclass(frozen=True, kw_only=True)
class ModuleLoader:
    """The modules of one kernel, and the subscribers that are called when a module comes or goes."""

    modules: Modules
    subscribers: ModuleSubscribers


def build(
    base: Base,
    *,
    trace: Trace,
    dyndbg: DynamicDebug,
    kobjects: KobjectTree,
    livepatch: LivepatchSupport,
    klp_find_object_symbol: FindSymbol,
) -> ModuleLoader:
    """Build the module loader. ``klp_find_object_symbol`` resolves the symbols of livepatch relocations."""
    subscribers = ModuleSubscribers()
    tables.subscribe(subscribers, base, ftrace=trace.ftrace, jump_labels=trace.jump_labels)
    subscribers.add(Stage.NOTIFIERS, ModuleNotifiers(base).subscriber())
    params = Params(base, dyndbg)
    subscribers.add(Stage.PARAMETERS, params.subscriber())
    subscribers.add(Stage.SYSFS, ModuleSysfs(base, params=params, kobjects=kobjects).subscriber())
    modules = Modules(
        base,
        subscribers=subscribers,
        livepatch=livepatch,
        klp_relocations=KlpRelocations(base, klp_find_object_symbol),
    )
    return ModuleLoader(modules=base.services.offer(modules), subscribers=subscribers)
