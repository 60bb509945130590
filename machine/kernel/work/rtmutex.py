# SPDX-License-Identifier: GPL-2.0-or-later
"""rt_mutexes, kernel/locking/rtmutex.c.

With PREEMPT_RT, mutexes and rw_semaphores are rt_mutexes. Those are guest code, which only needs schedule()
and wake-ups from Python.
"""

from __future__ import annotations

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.service import Ptr, service


def has_rt_mutexes(computer: Computer) -> bool:
    """Return whether mutexes and rw_semaphores are rt_mutexes in the kernel of ``computer``."""
    return computer.adapter.find("mutex.rtmutex") is not None


class RtMutexes:
    """A function of the scheduler that only rt_mutexes call."""

    @service("rt_mutex_setprio", embedded=False)
    def rt_mutex_setprio(self, _task: Ptr, _pi_task: Ptr) -> None:
        """Do nothing: the scheduler has no priorities, so there is no priority inheritance."""
