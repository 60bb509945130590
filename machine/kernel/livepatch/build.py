# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting the livepatch core together from the parts that the ABI of the kernel image asks for:
``klp_init``."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.kobject import Kobject, KobjectTree, kstrtobool
from klpfs.machine.kernel.livepatch.abi import Abi, Life
from klpfs.machine.kernel.livepatch.callbacks import ObjectCallbacks
from klpfs.machine.kernel.livepatch.coming import ComingModules, StrictComingModules
from klpfs.machine.kernel.livepatch.common import Common, KlpMutex, Messages
from klpfs.machine.kernel.livepatch.consistency import DEFAULT, PRESETS
from klpfs.machine.kernel.livepatch.consistency.choice import Consistency
from klpfs.machine.kernel.livepatch.consistency.leaving import Leaving
from klpfs.machine.kernel.livepatch.consistency.refcount import Counter
from klpfs.machine.kernel.livepatch.consistency.switches import Switches
from klpfs.machine.kernel.livepatch.consistency.universe import Universes
from klpfs.machine.kernel.livepatch.core import Core, EnabledLifecycle
from klpfs.machine.kernel.livepatch.free import PatchFree
from klpfs.machine.kernel.livepatch.going import GoingModules
from klpfs.machine.kernel.livepatch.init import PatchInit
from klpfs.machine.kernel.livepatch.kobjects import KlpKobjects
from klpfs.machine.kernel.livepatch.loaded import LoadedObjects, SectionLoadedObjects
from klpfs.machine.kernel.livepatch.objects import Patches
from klpfs.machine.kernel.livepatch.older.callbacks import NoCallbacks
from klpfs.machine.kernel.livepatch.older.immediate import ImmediateTransition
from klpfs.machine.kernel.livepatch.older.loaded import OldLoadedObjects
from klpfs.machine.kernel.livepatch.older.notifier import LenientComingModules
from klpfs.machine.kernel.livepatch.older.references import (
    References,
    ReferencesForever,
    ReferencesWhileEnabled,
)
from klpfs.machine.kernel.livepatch.older.registered import RegisteredLifecycle, parse_0_or_1
from klpfs.machine.kernel.livepatch.older.struct_relocs import StructRelocations
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.livepatch.redirection import FtraceRedirection, JumpRedirection
from klpfs.machine.kernel.livepatch.replace import AtomicReplace
from klpfs.machine.kernel.livepatch.state import States
from klpfs.machine.kernel.livepatch.symbols import Symbols
from klpfs.machine.kernel.livepatch.sysfs import Attributes
from klpfs.machine.kernel.livepatch.transition import ConsistentTransition, Transition
from klpfs.machine.kernel.module.build import ModuleLoader
from klpfs.machine.kernel.module.subscribers import ModuleSubscriber, Stage
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.trace.build import Trace
from klpfs.machine.kernel.work.build import Work


@dataclass(frozen=True, kw_only=True)
class Livepatch:
    """The live patching of one kernel."""

    patches: Patches
    functions: PatchedFunctions
    transition: Transition
    universes: Universes
    consistency: Consistency
    switches: Switches
    symbols: Symbols
    coming: ComingModules
    going: GoingModules


def build(
    base: Base,
    *,
    abi: Abi,
    trace: Trace,
    work: Work,
    dyndbg: DynamicDebug,
    kobjects: KobjectTree,
    loader: ModuleLoader,
) -> Livepatch:
    """Return the livepatch core of a kernel whose ABI has one, with its services registered, its
    directories in sysfs, and its subscription to modules that are loaded and unloaded."""
    ftrace, freezer, modules = trace.ftrace, work.freezer, loader.modules
    computer = base.computer
    computer.space.missing_members = abi.absent
    registered = abi.life is not Life.ENABLED
    at_once = abi.life is Life.REGISTERED_AT_ONCE

    messages, universes = Messages(base.printk), Universes(computer, base.sched)
    common = Common(
        base=base,
        abi=abi,
        messages=messages,
        klp_mutex=KlpMutex(base, work.mutexes),
        patches=Patches(computer),
        universes=universes,
    )
    klp_kobjects = KlpKobjects(base, kobjects.at(("kernel",)).add(Kobject("livepatch")))
    symbols = Symbols(common)
    callbacks = ObjectCallbacks(base.sched, common.klp_mutex) if abi.callbacks else NoCallbacks()
    functions = PatchedFunctions(
        common,
        {
            "ftrace": FtraceRedirection(common, ftrace),
            "jump": JumpRedirection(common, base.text, ftrace),
        },
    )

    counter = Counter(base, ftrace_=ftrace, stack=base.stack)
    switches = Switches(
        messages,
        universes=universes,
        leaving=Leaving(
            universes=universes,
            functions=functions,
            stack=base.stack,
            freezer=freezer,
            dyndbg=dyndbg,
        ),
        functions=functions,
        freezer=freezer,
        counter=counter,
        pause=base.sched.synchronize_rcu,
    )
    consistency = Consistency(
        messages,
        unavailable=switches.unavailable,
        modinfo=None if at_once else modules.modinfo,
        default=PRESETS["3.20"] if at_once else DEFAULT,
    )
    if not at_once:
        kobjects.at(("module", "livepatch")).add(consistency.parameters())

    free = PatchFree(
        common,
        kobjects=klp_kobjects,
        consistency=consistency,
        modules=modules,
        workqueues=work.workqueues,
    )
    replace = AtomicReplace(common, functions=functions, free=free)
    references: References = (
        ReferencesForever(modules, printk=base.printk, tainted=base.tainted)
        if at_once
        else ReferencesWhileEnabled(modules)
    )
    on_complete = references.transition_completed if registered else free.free_unused
    transition: Transition = (
        ImmediateTransition(base.sched, functions=functions, on_complete=on_complete)
        if at_once
        else ConsistentTransition(
            common,
            switches=switches,
            consistency=consistency,
            functions=functions,
            callbacks=callbacks,
            replace=replace,
            workqueues=work.workqueues,
            dyndbg=dyndbg,
            on_complete=on_complete,
        )
    )

    relocations = StructRelocations(common, symbols=symbols, modules=modules)
    loaded: LoadedObjects = (
        OldLoadedObjects(common, symbols=symbols, relocations=relocations)
        if at_once
        else SectionLoadedObjects(common, symbols=symbols, modules=modules)
    )
    init = PatchInit(
        common,
        kobjects=klp_kobjects,
        attributes=Attributes(common, transition),
        loaded=loaded,
        replace=replace,
        modules=modules,
    )
    core = Core(
        common,
        functions=functions,
        transition=transition,
        callbacks=callbacks,
        consistency=consistency,
    )
    states = States(common)
    lifecycle = (
        RegisteredLifecycle(
            common,
            core=core,
            init=init,
            free=free,
            transition=transition,
            consistency=consistency,
            references=references,
            parse_enabled=parse_0_or_1 if at_once else kstrtobool,
        )
        if registered
        else EnabledLifecycle(
            common,
            core=core,
            init=init,
            free=free,
            transition=transition,
            states=states,
            consistency=consistency,
            modules=modules,
        )
    )
    going = GoingModules(
        common, functions=functions, transition=transition, callbacks=callbacks, free=free
    )
    coming: ComingModules = (
        LenientComingModules(common, functions=functions, loaded=loaded, free=free)
        if at_once
        else StrictComingModules(
            common,
            functions=functions,
            transition=transition,
            callbacks=callbacks,
            consistency=consistency,
            loaded=loaded,
            free=free,
            going=going,
        )
    )
    for provider in (lifecycle, states, counter):
        base.services.offer(provider)
    loader.subscribers.add(
        Stage.LIVEPATCH,
        ModuleSubscriber(
            coming=lambda module: coming.klp_module_coming(module.struct),
            going=lambda module: going.klp_module_going(module.struct),
            freed=lambda module: functions.module_freed(
                module.name, range(module.core_base, module.core_base + module.core_size)
            ),
        ),
    )
    return Livepatch(
        patches=common.patches,
        functions=functions,
        transition=transition,
        universes=universes,
        consistency=consistency,
        switches=switches,
        symbols=symbols,
        coming=coming,
        going=going,
    )
