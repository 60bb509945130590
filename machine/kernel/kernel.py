# SPDX-License-Identifier: GPL-2.0-or-later
"""All services of one kernel, put together in the order in which they stand on each other."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from klpfs.machine.computer import Computer
from klpfs.machine.image import Image
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.early import set_up_cpu, set_up_system
from klpfs.machine.kernel.kallsyms import Kallsyms, SystemInfo
from klpfs.machine.kernel.kobject import KobjectTree
from klpfs.machine.kernel.livepatch.abi import ABIS, Life
from klpfs.machine.kernel.livepatch.build import make_livepatch
from klpfs.machine.kernel.livepatch.off import LivepatchOff
from klpfs.machine.kernel.mm.kmem_cache import KmemCaches
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.kernel.module.params import Params
from klpfs.machine.kernel.oops.slub_debug import SlubDebug
from klpfs.machine.kernel.oops.taint import Tainted
from klpfs.machine.kernel.oops.traps import Traps
from klpfs.machine.kernel.oops.watchdog import Watchdog
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.printk.printk import Printk
from klpfs.machine.kernel.proc import Proc
from klpfs.machine.kernel.random import RandomNumbers
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import Services
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.kernel.trace.jump_label import JumpLabels
from klpfs.machine.kernel.trace.text import Text
from klpfs.machine.kernel.trace.tracer import Tracer
from klpfs.machine.kernel.usermem import UserMemory
from klpfs.machine.kernel.work.kthread import Kthreads
from klpfs.machine.kernel.work.locking import Locking
from klpfs.machine.kernel.work.rcu import Rcu
from klpfs.machine.kernel.work.timer import Timers
from klpfs.machine.kernel.work.workqueue import Workqueues

DEFAULT_MEMORY = 256 << 20
"""Bytes of RAM."""
DEFAULT_COMMAND_LINE = "BOOT_IMAGE=klpfs"
"""What /proc/cmdline says, unless the image brings its own."""


class Kernel:
    """A kernel image on a computer, with its services. `boot` starts it.

    ``clock``: real or virtual time. With ``slice_instructions`` a run can be repeated exactly.
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
        self.abi = ABIS[image.abi]
        self.clock = clock
        self._inside: set[trio.CancelScope] = set()
        self._off = False
        self.computer = computer = Computer(
            image, memory_size=memory_size, slice_instructions=slice_instructions
        )
        self.image = computer.image
        self.symbols = computer.symbols
        self.services = Services(computer)
        self.slab = Slab(computer)
        self.random = RandomNumbers(computer, clock)
        set_up_cpu(computer, self.random.bytes)
        set_up_system(computer, self.slab, command_line)
        self.sched = Scheduler(computer, clock, self.slab, self.services)
        self.printk = Printk(computer, clock)
        self.tainted = Tainted(self.printk)
        self.text = Text(computer, self.sched)
        self.jump_labels = JumpLabels(computer, self.text)
        self.stack = StackTrace(computer, self.sched)
        self.traps = Traps(computer, self.sched, self.printk, self.text, self.stack, self.tainted)
        SlubDebug(computer, self.slab, self.sched, self.printk, self.traps, self.tainted)
        self.dyndbg = DynamicDebug(self.printk, self.sched)
        self.kobjects = KobjectTree()
        self.kobjects.at(("kernel",))
        self.ftrace = Ftrace(computer, self.sched, self.slab, self.text, self.stack)
        self.tracer = Tracer(computer, self.sched, clock, self.ftrace)
        self.traps.on_oops = self.tracer.stop
        self.locking = Locking(computer, self.sched, self.printk)
        self.timers = Timers(computer, self.sched, clock)
        self._warned_of_timer = False
        self.timers.warn_once = self._warn_of_timer
        self.watchdog = Watchdog(
            self.sched, self.timers, self.traps, self.printk, self.tainted, f"{image.release} #1"
        )
        self.freezer = Freezer(computer, self.sched, self.stack)
        self.kthreads = Kthreads(computer, self.sched, self.locking, self.freezer)
        self.workqueues = Workqueues(computer, self.sched, self.slab, self.timers, self.printk)
        self.rcu = Rcu(computer, self.sched, self.slab, self.workqueues.queue)
        self.params = Params(computer, self.sched, self.slab, self.printk, self.dyndbg)
        self.user = UserMemory(computer, self.sched, self.slab)
        self.proc = Proc(computer, self.sched, self.slab, self.user)
        self.proc.warn = self._warn_of_proc
        self.modules = Modules(
            computer, self.sched, self.printk, self.tainted, self.traps, self.ftrace, self.jump_labels,
            self.stack, self.params, self.kobjects, livepatch_enabled=self.abi.life is not Life.NONE,
            livepatch_marked=self.abi.marked,
        )  # fmt: skip
        providers = [
            self.slab, self.printk, self.tainted, self.traps, self.ftrace, self.tracer, self.locking,
            self.timers, self.kthreads, self.workqueues, self.rcu, self.proc, self.modules,
            self.jump_labels, Kallsyms(computer), SystemInfo(computer, clock), self.random,
        ]  # fmt: skip
        if "struct kmem_cache" in computer.space.types:  # the embedded kernel has its own
            providers.append(KmemCaches(computer, self.sched, self.slab))
        if self.abi.life is Life.NONE:
            self.modules.livepatch = LivepatchOff()
        else:
            base = Base(
                computer=computer,
                clock=clock,
                services=self.services,
                slab=self.slab,
                sched=self.sched,
                printk=self.printk,
                traps=self.traps,
            )
            self.livepatch = self.modules.livepatch = make_livepatch(
                base,
                abi=self.abi,
                dyndbg=self.dyndbg,
                freezer=self.freezer,
                ftrace=self.ftrace,
                kobjects=self.kobjects,
                locking=self.locking,
                modules=self.modules,
                stack=self.stack,
                tainted=self.tainted,
                text=self.text,
                workqueues=self.workqueues,
            )
        for provider in providers:
            self.services.offer(provider)
        self.exports = self.modules.kernel_exports = {
            name: export
            for name, export in image.exports.items()
            if export.addr not in image.stubs or name in self.services.bound
        }
        """What modules may use: a function that has neither code nor a service is none of it."""

    def _warn_of_proc(self, message: str) -> None:
        self.traps.warn("fs/proc/generic.c", 429, "__proc_create", message)

    def _warn_of_timer(self, message: str) -> None:
        if not self._warned_of_timer:
            self._warned_of_timer = True
            self.traps.warn("kernel/time/timer.c", 1707, "call_timer_fn", message)

    async def boot(self, nursery: trio.Nursery) -> None:
        """Start kernel threads (they live in ``nursery``) and run the image's initcalls."""
        self.clock.begin()
        self.sched.start(nursery)
        self.timers.start()
        self.watchdog.start()
        self.workqueues.start()
        self.printk(5, self.image.banner.rstrip("\n"))
        for initcall in self.image.initcalls:
            await self.sched.idle.call(initcall)
        self.computer.mark_rodata_ro()

    @contextmanager
    def entered(self) -> Iterator[trio.CancelScope]:
        """A process of the host is in the kernel for as long as the block lasts. The scope is shielded:
        only `power_off` cancels it. Raises OSError(EINTR) if it did, before or meanwhile."""
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
        """Nobody stays in the kernel, whatever it waits for there, and nobody gets there any more."""
        self._off = True
        for scope in self._inside:
            scope.cancel()

    def close(self) -> None:
        """Switch the computer off."""
        self.computer.cpu.close()

    # -- what people see of it --------------------------------------------------------------------

    def name_of(self, address: int) -> str:
        """``name+0xoffset`` of code, also of a trampoline, which has no symbol of its own."""
        for site in self.ftrace.enabled_sites():
            for ops in site.ops:
                view = self.computer.space.view("struct ftrace_ops", ops)
                start = int(view.trampoline)
                if start <= address < start + view.trampoline_size:
                    handler = self.symbols.sprint_symbol_no_offset(int(view.func))
                    return f"ftrace_trampoline of {handler}"
        return self.symbols.sprint_symbol(address)

    def stack_text(self, task: Task) -> str:
        """/proc/<pid>/stack, ``proc_pid_stack``."""
        return "".join(
            f"[<0>] {self.symbols.sprint_backtrace(entry)}\n"
            for entry in self.stack.walk(task)
            if not self.sched.is_return(entry)
        )

    def status_text(self, task: Task) -> str:
        """The head of /proc/<pid>/status."""
        letter = {0: "R (running)", 1: "S (sleeping)", 2: "D (disk sleep)"}
        state = letter.get(int(task.state) & 3, "X (dead)")
        parent = self.sched.parent_pid(task)
        return (
            f"Name:\t{task.comm}\nState:\t{state}\nTgid:\t{task.pid}\nPid:\t{task.pid}\n"
            f"PPid:\t{parent}\n"
        )

    def kallsyms_text(self) -> str:
        """/proc/kallsyms, for root. A capital letter is an export: no symbol of another's is one."""
        return "".join(
            f"{symbol.addr:016x} {symbol.kind if symbol.kind != 'U' else 'u'} {symbol.name}"
            + (f"\t[{module}]\n" if module else "\n")
            for symbol, module in self.symbols
        )
