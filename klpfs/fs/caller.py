# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that uses the mount is a task of the guest while its operation lasts."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from signal import SIGKILL

from klpfs.fs.nodes import Caller
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.sched.core import TaskExit


def comm_of(pid: int) -> str:
    """The name of a thread of the host; ``?`` if it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/comm", os.O_RDONLY)
        try:
            return os.fsdecode(os.read(descriptor, 64)).rstrip("\n")
        finally:
            os.close(descriptor)
    except OSError:
        return "?"


class TaskDied(OSError):
    """The task did not survive what it did in the kernel: in Linux, the process is no more, as if by
    ``signal``."""

    def __init__(self, number: int, signal: int) -> None:
        super().__init__(number, "the task died")
        self.signal = signal


@asynccontextmanager
async def inside(kernel: Kernel, caller: Caller) -> AsyncIterator[None]:
    """The body runs in the kernel of the guest, as the caller's task. A signal that the caller has to
    take ends its sleep there if that is interruptible, and the task if it does not sleep at all; any
    other sleep goes on. An oops, which kills the task, is TaskDied(EFAULT) for the process."""
    with kernel.entered() as shield:
        try:
            async with kernel.sched.user_task(caller.pid, comm_of(caller.pid)) as task:
                task.shield = shield
                yield
        except TaskExit as exit_:
            number = errno.EFAULT if exit_.oops else errno.EINTR
            raise TaskDied(number, exit_.code or SIGKILL) from None
