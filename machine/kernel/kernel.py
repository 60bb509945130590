# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel: its subsystems, built in the order in which they depend on each other."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from klpfs.machine.computer import Computer
from klpfs.machine.image import Image
from klpfs.machine.kernel.base import build as build_base
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.kallsyms import Kallsyms, SystemInfo
from klpfs.machine.kernel.kobject import KobjAttribute, Kobject, KobjectTree
from klpfs.machine.kernel.livepatch.abi import ABIS, Life
from klpfs.machine.kernel.livepatch.at_once import AtOnce
from klpfs.machine.kernel.livepatch.callbacks import Callbacks, NoCallbacks
from klpfs.machine.kernel.livepatch.consistency import DEFAULT, PRESETS, Consistency
from klpfs.machine.kernel.livepatch.core import Livepatch
from klpfs.machine.kernel.livepatch.first import FirstLivepatch
from klpfs.machine.kernel.livepatch.leaving import Leaving
from klpfs.machine.kernel.livepatch.patch import Redirection
from klpfs.machine.kernel.livepatch.refcount import Counter
from klpfs.machine.kernel.livepatch.registered import RegisteredLivepatch
from klpfs.machine.kernel.livepatch.struct_relocs import StructRelocations
from klpfs.machine.kernel.livepatch.switching import Switches
from klpfs.machine.kernel.livepatch.transition import RETRY_SECONDS, Transition
from klpfs.machine.kernel.livepatch.universe import Universes
from klpfs.machine.kernel.mm.kmem_cache import KmemCaches
from klpfs.machine.kernel.module.build import build as build_module_loader
from klpfs.machine.kernel.module.check import LivepatchSupport
from klpfs.machine.kernel.module.subscribers import ModuleSubscriber, Stage
from klpfs.machine.kernel.oops.build import build as build_oops
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.proc import Proc
from klpfs.machine.kernel.trace.build import build as build_trace
from klpfs.machine.kernel.usermem import UserMemory
from klpfs.machine.kernel.work.build import build as build_work

DEFAULT_MEMORY = 256 << 20
"""Bytes of RAM."""
DEFAULT_COMMAND_LINE = "BOOT_IMAGE=klpfs"
"""Content of /proc/cmdline for an image without a command line."""


class Kernel:
    """A kernel image on a computer, with its services. `boot` starts it.

    With a virtual ``clock`` and ``slice_instructions``, the length of a slice in instructions, a run can be
    repeated exactly.
    """

    def __init__(
        self,
        image: Image,
        clock: Clock,
        *,
        memory_size: int = DEFAULT_MEMORY,
        slice_instructions: int = 0,
        command_line: str = DEFAULT_COMMAND_LINE,
    ) -> None:
        self.abi = abi = ABIS[image.abi]
        self.clock = clock
        self._inside: set[trio.CancelScope] = set()
        self._off = False
        self.computer = computer = Computer(
            image, memory_size=memory_size, slice_instructions=slice_instructions
        )
        self.image = computer.image
        self.symbols = computer.symbols
        self.base = base = build_base(computer, clock, command_line=command_line)
        self.services = base.services
        self.slab = base.slab
        self.sched = base.sched
        self.fork = base.fork
        self.printk = base.printk
        self.tainted = base.tainted
        self.text = base.text
        self.stack = base.stack
        self.traps = base.traps
        self.bugs = base.bugs
        self.kallsyms = base.services.offer(Kallsyms(base))
        base.services.offer(SystemInfo(base))
        base.services.offer(KmemCaches(base))
        self.kobjects = KobjectTree()
        self.dyndbg = DynamicDebug(base)
        self.user = UserMemory(base)
        self.trace = build_trace(base)
        self.ftrace = self.trace.ftrace
        self.tracer = self.trace.tracer
        self.work = build_work(base)
        self.mutexes = self.work.mutexes
        self.freezer = self.work.freezer
        self.workqueues = self.work.workqueues
        self.watchdog = build_oops(base, timers=self.work.timers).watchdog
        self.proc = base.services.offer(Proc(base, self.user))
        loader = build_module_loader(
            base,
            trace=self.trace,
            dyndbg=self.dyndbg,
            kobjects=self.kobjects,
            livepatch=LivepatchSupport(enabled=abi.life is not Life.NONE, marked=abi.marked),
            klp_find_object_symbol=self._klp_find_object_symbol,
        )
        self.modules = loader.modules
        self.exports = computer.image.exports
        kernel_kobj = self.kobjects.at(("kernel",))
        kernel_kobj.attributes += [
            KobjAttribute("oops_count", lambda: f"{self.traps.oops_count}\n"),
            KobjAttribute("warn_count", lambda: f"{self.bugs.warn_count}\n"),
        ]
        if abi.life is not Life.NONE:
            root = kernel_kobj.add(Kobject("livepatch"))
            self.livepatch = livepatch = self._make_livepatch(root)
            for provider in (livepatch, livepatch.states, self.counter):
                base.services.offer(provider)
            loader.subscribers.add(
                Stage.LIVEPATCH,
                ModuleSubscriber(
                    coming=lambda module: livepatch.module_coming(module.struct),
                    going=lambda module: livepatch.module_going(module.struct),
                ),
            )

    def _klp_find_object_symbol(self, objname: str | None, name: str, sympos: int) -> int:
        return self.livepatch.klp_find_object_symbol(objname, name, sympos)

    def _make_livepatch(self, root: Kobject) -> Livepatch:
        """The livepatch core that the image's ABI asks for, on what the ABIs have in common."""
        computer, abi = self.computer, self.abi
        computer.space.missing_members = abi.absent
        callbacks = (Callbacks if abi.callbacks else NoCallbacks)(self.sched)
        redirection = Redirection(computer, self.slab, self.ftrace, self.text, self.printk, abi)
        self.universes = Universes(computer, self.sched)
        self.counter = Counter(computer, self.sched, self.slab, self.ftrace, self.stack)
        self.switches = Switches(
            self.universes,
            self.printk,
            Leaving(self.universes, redirection, self.stack, self.freezer, self.dyndbg),
            redirection,
            self.freezer,
            self.counter,
            self.sched.synchronize_rcu,
        )
        at_once = abi.life is Life.REGISTERED_AT_ONCE
        default = PRESETS["3.20"] if at_once else DEFAULT
        consistency = Consistency(self.printk, self.switches.unavailable, self._modinfo, default)
        transition = (
            AtOnce(self.sched, redirection)
            if at_once
            else Transition(
                computer,
                self.sched,
                self.universes,
                redirection,
                callbacks,
                self.printk,
                self.dyndbg,
                lambda patch: self.switches.of(consistency.of(patch)),
                self._retry_transition,
                abi,
            )
        )
        if not at_once:
            self.kobjects.at(("module", "livepatch")).add(consistency.parameters())
        if abi.life is Life.REGISTERED:
            self.universes.is_immediate = lambda func: bool(func.immediate)
        cores: dict[Life, Callable[..., Livepatch]] = {
            Life.ENABLED: Livepatch,
            Life.REGISTERED: RegisteredLivepatch,
            Life.REGISTERED_AT_ONCE: partial(
                FirstLivepatch,
                relocations=StructRelocations(computer, self.printk, self.modules),
                tainted=self.tainted,
            ),
        }
        klp_mutex = computer.symbol("klp_mutex")
        return cores[abi.life](
            computer,
            self.slab,
            self.printk,
            self.traps,
            redirection,
            transition,
            callbacks,
            consistency,
            self.modules,
            root,
            lambda: self.mutexes.mutex(klp_mutex),
            self.workqueues.queue,
            abi,
        )

    def _retry_transition(self) -> None:
        self.workqueues.queue_delayed(self.livepatch.transition_work, RETRY_SECONDS)

    def _modinfo(self, module: int, tag: str) -> str | None:
        found = self.modules.at(module)
        return found.modinfo(tag) if found is not None else None

    async def boot(self, nursery: trio.Nursery) -> None:
        """Start kernel threads (they live in ``nursery``) and run the image's initcalls."""
        self.clock.begin()
        self.fork.start(nursery)
        self.work.timers.start()
        self.watchdog.start()
        self.workqueues.start()
        self.printk(5, self.image.banner.rstrip("\n"))
        for initcall in self.image.initcalls:
            await self.sched.idle.call(initcall)
        self.computer.mark_rodata_ro()

    @contextmanager
    def entered(self) -> Iterator[trio.CancelScope]:
        """Run the body as an operation of a process of the host in the kernel. The scope is shielded: only
        `power_off` cancels it. Raises OSError(EINTR) if the machine is off, before or after the body."""
        if self._off:
            raise OSError(errno.EINTR, "the power is off")
        with trio.CancelScope(shield=True) as scope:
            self._inside.add(scope)
            try:
                yield scope
            finally:
                self._inside.discard(scope)
        if scope.cancelled_caught:
            raise OSError(errno.EINTR, "the power is off")

    def power_off(self) -> None:
        """Cancel the operations of all processes of the host in the kernel, and refuse new ones."""
        self._off = True
        for scope in self._inside:
            scope.cancel()

    def close(self) -> None:
        """Stop the timer thread of the CPU."""
        self.computer.cpu.close()
