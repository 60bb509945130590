# SPDX-License-Identifier: GPL-2.0-or-later
"""What most parts of the core use: the kernel's global variables, and its ``pr_fmt``.
kernel/livepatch/core.c, kernel/livepatch/transition.c."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.livepatch.abi import Abi
from klpfs.machine.kernel.livepatch.consistency.universe import Universes
from klpfs.machine.kernel.livepatch.objects import Patches
from klpfs.machine.kernel.printk.printk import (
    LOGLEVEL_ERR,
    LOGLEVEL_NOTICE,
    LOGLEVEL_WARNING,
    Printk,
)
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskExit
from klpfs.machine.kernel.work.mutex import Mutexes
from klpfs.machine.structs import Space


@dataclass(frozen=True, kw_only=True)
class Common:
    """The first argument of a part of the core."""

    base: Base
    abi: Abi
    messages: Messages
    klp_mutex: KlpMutex
    patches: Patches
    """``klp_patches``."""
    universes: Universes
    """``klp_transition_patch`` and ``klp_target_state``."""

    @property
    def space(self) -> Space:
        """Guest memory as structs."""
        return self.base.computer.space


class Messages:
    """``pr_err``, ``pr_warn`` and ``pr_notice`` with the prefix of kernel/livepatch/."""

    def __init__(self, printk: Printk) -> None:
        self._printk = printk

    def pr_err(self, text: str) -> None:
        """Log a line with level LOGLEVEL_ERR."""
        self.log(LOGLEVEL_ERR, text)

    def pr_warn(self, text: str) -> None:
        """Log a line with level LOGLEVEL_WARNING."""
        self.log(LOGLEVEL_WARNING, text)

    def pr_notice(self, text: str) -> None:
        """Log a line with level LOGLEVEL_NOTICE."""
        self.log(LOGLEVEL_NOTICE, text)

    def log(self, level: int, text: str) -> None:
        """Log a line."""
        self._printk(level, f"livepatch: {text}")


class KlpMutex:
    """``klp_mutex``: everything that changes patches, or a transition, holds it.

    A task that dies in guest code while it holds the mutex (a callback has oopsed) would keep it forever,
    as it does in Linux. Here the caller of the guest code reports the death to `exit_later` and goes on,
    and the task ends when it releases the mutex.
    """

    def __init__(self, base: Base, mutexes: Mutexes) -> None:
        self._sched = base.sched
        self._mutexes = mutexes
        self._address = base.computer.symbol("klp_mutex")
        self._exits: dict[Task, TaskExit] = {}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the mutex on the current task. A checkpoint if it has to wait. Raises the TaskExit that was
        reported meanwhile, at the end of the block."""
        try:
            async with self._mutexes.mutex(self._address):
                yield
        finally:
            exit_ = self._exits.pop(self._sched.current, None)
            if exit_ is not None:
                raise exit_

    def exit_later(self, exit_: TaskExit) -> None:
        """End the current task with ``exit_`` when it releases the mutex."""
        self._exits.setdefault(self._sched.current, exit_)
