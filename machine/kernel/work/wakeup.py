# SPDX-License-Identifier: GPL-2.0-or-later
"""Wake-ups of tasks by guest code: ``try_to_wake_up`` and the wake-up function of wait queues.

kernel/sched/core.c, kernel/sched/wait.c.
"""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.wait import NORMAL
from klpfs.machine.kernel.service import S32, U32, Ptr, service


class WakeUps:
    """Wakes tasks for guest code."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._sched = base.sched

    @service("default_wake_function")
    def default_wake_function(self, entry: Ptr, mode: U32, _flags: S32, _key: Ptr) -> int:
        """Wake the task of a wait_queue_entry. The code of wait queues itself is guest code."""
        address = int(self._space.view("struct wait_queue_entry", entry).private)
        return int(self._wake(address, mode))

    @service("wake_up_process")
    def wake_up_process(self, address: Ptr) -> int:
        return int(self._wake(address, NORMAL))

    @service("wake_up_state")
    def wake_up_state(self, address: Ptr, state: U32) -> int:
        return int(self._wake(address, state))

    def _wake(self, address: int, states: int) -> bool:
        try:
            return self._sched.at(address).wake(states)
        except OSError:  # the task has ended, and the caller holds a reference to its task_struct
            return False
