# SPDX-License-Identifier: GPL-2.0-or-later
"""``klp_mutex``: everything that changes patches, or a transition, holds it. kernel/livepatch/core.c."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task, TaskExit
from klpfs.machine.kernel.work.locking import Locking


class KlpMutex:
    """The mutex in guest memory.

    A task that dies in guest code while it holds the mutex (a callback has oopsed) would keep it forever,
    as it does in Linux. Here the caller of the guest code reports the death to `exit_later` and goes on,
    and the task ends when it releases the mutex.
    """

    def __init__(self, base: Base, locking: Locking) -> None:
        self._sched = base.sched
        self._locking = locking
        self._address = base.computer.symbol("klp_mutex")
        self._exits: dict[Task, TaskExit] = {}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the mutex on the current task. A checkpoint if it has to wait. Raises the TaskExit that was
        reported meanwhile, at the end of the block."""
        try:
            async with self._locking.mutex(self._address):
                yield
        finally:
            exit_ = self._exits.pop(self._sched.current, None)
            if exit_ is not None:
                raise exit_

    def exit_later(self, exit_: TaskExit) -> None:
        """End the current task with ``exit_`` when it releases the mutex."""
        self._exits.setdefault(self._sched.current, exit_)
