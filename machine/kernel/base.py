# SPDX-License-Identifier: GPL-2.0-or-later
"""The services that every other service of a kernel is built on."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.oops.traps import Traps
from klpfs.machine.kernel.printk.printk import Printk
from klpfs.machine.kernel.sched.core import Scheduler
from klpfs.machine.kernel.service import Services


@dataclass(frozen=True, kw_only=True)
class Base:
    """The services that every subsystem gets as its first argument.

    None of them depends on a subsystem that is built later. ``services`` binds methods that are marked
    with `service.service` to functions of the kernel image.
    """

    computer: Computer
    clock: Clock
    services: Services
    slab: Slab
    sched: Scheduler
    printk: Printk
    traps: Traps
