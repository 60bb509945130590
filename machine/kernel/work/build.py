# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks, time, kernel threads, work queues and RCU, put together."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.work.kthread import Kthreads
from klpfs.machine.kernel.work.locking import Locking
from klpfs.machine.kernel.work.rcu import Rcu
from klpfs.machine.kernel.work.timer import Timers
from klpfs.machine.kernel.work.workqueue import Workqueues


@dataclass(frozen=True, kw_only=True)
class Work:
    """What this folder provides."""

    locking: Locking
    timers: Timers
    freezer: Freezer
    kthreads: Kthreads
    workqueues: Workqueues
    rcu: Rcu


def build(base: Base) -> Work:
    """Build what runs later, or waits."""
    offer = base.services.offer
    locking = offer(Locking(base))
    timers = offer(Timers(base))
    freezer = Freezer(base)
    kthreads = offer(Kthreads(base, locking=locking, freezer=freezer))
    workqueues = offer(Workqueues(base, timers))
    return Work(
        locking=locking,
        timers=timers,
        freezer=freezer,
        kthreads=kthreads,
        workqueues=workqueues,
        rcu=offer(Rcu(base, workqueues)),
    )
