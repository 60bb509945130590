# SPDX-License-Identifier: GPL-2.0-or-later
"""The services that every other service of a kernel is built on, and their construction."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.early import set_up_cpu, set_up_system
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.oops.bug import Bugs
from klpfs.machine.kernel.oops.dumpstack import DumpStack
from klpfs.machine.kernel.oops.taint import Tainted
from klpfs.machine.kernel.oops.traps import Traps
from klpfs.machine.kernel.printk.printk import Printk
from klpfs.machine.kernel.random import RandomNumbers
from klpfs.machine.kernel.sched.core import Scheduler
from klpfs.machine.kernel.sched.fork import Fork
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import Services
from klpfs.machine.kernel.trace.text import Text


@dataclass(frozen=True, kw_only=True)
class Base:
    """The services that every subsystem gets as its first argument.

    None of them depends on a subsystem that is built later. A later subsystem that must be notified
    subscribes: see the lists of `Slab`, `Scheduler` and `Traps`. ``services`` binds methods that are marked
    with `service.service` to functions of the kernel image.
    """

    computer: Computer
    clock: Clock
    services: Services
    slab: Slab
    sched: Scheduler
    fork: Fork
    printk: Printk
    tainted: Tainted
    text: Text
    stack: StackTrace
    dumpstack: DumpStack
    bugs: Bugs
    traps: Traps


def build(computer: Computer, clock: Clock, *, command_line: str = "") -> Base:
    """Build the base of a kernel on ``computer``. ``command_line`` is for an image without one."""
    services = Services(computer)
    slab = services.offer(Slab(computer))
    random = services.offer(RandomNumbers(computer, clock))
    set_up_cpu(computer, random.bytes)
    set_up_system(computer, slab, command_line)
    sched = Scheduler(computer, clock, services=services)
    fork = Fork(sched, slab)
    printk = services.offer(Printk(computer, clock))
    tainted = services.offer(Tainted(printk))
    text = Text(computer, sched)
    stack = StackTrace(computer, sched)
    dumpstack = services.offer(
        DumpStack(computer, sched, printk=printk, tainted=tainted, stack=stack)
    )
    bugs = Bugs(computer, sched, printk=printk, tainted=tainted, dumpstack=dumpstack)
    traps = services.offer(
        Traps(
            computer,
            sched,
            printk=printk,
            tainted=tainted,
            text=text,
            dumpstack=dumpstack,
            bugs=bugs,
        )
    )
    return Base(
        computer=computer,
        clock=clock,
        services=services,
        slab=slab,
        sched=sched,
        fork=fork,
        printk=printk,
        tainted=tainted,
        text=text,
        stack=stack,
        dumpstack=dumpstack,
        bugs=bugs,
        traps=traps,
    )
