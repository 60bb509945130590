# SPDX-License-Identifier: GPL-2.0-or-later
"""Construction of locks, timers, kernel threads, workqueues and RCU."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.work.completion import Completions
from klpfs.machine.kernel.work.kthread import Kthreads
from klpfs.machine.kernel.work.mutex import Mutexes
from klpfs.machine.kernel.work.rcu import Rcu
from klpfs.machine.kernel.work.rtmutex import RtMutexes
from klpfs.machine.kernel.work.rwsem import RwSemaphores
from klpfs.machine.kernel.work.semaphore import Semaphores
from klpfs.machine.kernel.work.timer import Timers
from klpfs.machine.kernel.work.wakeup import WakeUps
from klpfs.machine.kernel.work.workqueue import Workqueues


@dataclass(frozen=True, kw_only=True)
class Work:
    """The services of this folder that other services use."""

    mutexes: Mutexes
    completions: Completions
    timers: Timers
    freezer: Freezer
    kthreads: Kthreads
    workqueues: Workqueues
    rcu: Rcu


def build(base: Base) -> Work:
    """Build the services of this folder."""
    offer = base.services.offer
    mutexes = offer(Mutexes(base))
    completions = offer(Completions(base))
    for provider in (Semaphores(base), RwSemaphores(base), RtMutexes(), WakeUps(base)):
        offer(provider)
    timers = offer(Timers(base))
    freezer = Freezer(base)
    kthreads = offer(Kthreads(base, completions=completions, freezer=freezer))
    workqueues = offer(Workqueues(base, timers))
    return Work(
        mutexes=mutexes,
        completions=completions,
        timers=timers,
        freezer=freezer,
        kthreads=kthreads,
        workqueues=workqueues,
        rcu=offer(Rcu(base, workqueues)),
    )
