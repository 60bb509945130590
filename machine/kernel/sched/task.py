# SPDX-License-Identifier: GPL-2.0-or-later
"""States and flags of tasks, and how a task ends. include/linux/sched.h,
arch/x86/include/asm/page_64_types.h."""

from __future__ import annotations

import enum
from typing import NamedTuple

THREAD_SIZE = 16384
"""Size of a kernel stack in bytes, arch/x86/include/asm/page_64_types.h."""
PF_EXITING, PF_WQ_WORKER, PF_KTHREAD = 0x4, 0x20, 0x00200000
"""``task_struct.flags``."""


class TaskState(enum.IntFlag):
    """``task_struct.__state``, include/linux/sched.h."""

    RUNNING = 0
    INTERRUPTIBLE = 1
    UNINTERRUPTIBLE = 2
    DEAD = 0x80


class UserRegisters(NamedTuple):
    """The registers of a process at its system call."""

    number: int
    arguments: tuple[int, ...]
    """The six arguments."""
    sp: int
    ip: int
    code: bytes
    """42 bytes before the instruction at ``ip``, and 22 from there, or none if they cannot be read."""


class TaskExit(BaseException):
    """End of the current task: it called ``do_exit``, or an oops killed it.

    It is not derived from Exception, so that ``except Exception`` in a service does not catch it.
    """

    def __init__(self, code: int = 0, *, oops: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.oops = oops
