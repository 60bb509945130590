# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest task of a caller: a host process that uses the mount is a task while its operation lasts."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from signal import SIGKILL

from klpfs.fs.host_proc import comm, fatal_signal_pending, user_registers
from klpfs.fs.nodes import Caller
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.sched.task import TaskExit


class TaskDied(OSError):
    """The caller's task was killed in the guest. Linux would have ended the process by ``signal``."""

    def __init__(self, number: int, signal: int) -> None:
        super().__init__(number, "the task died")
        self.signal = signal


@asynccontextmanager
async def caller_task(kernel: Kernel, caller: Caller) -> AsyncIterator[None]:
    """Run the body in the guest's kernel, as the task of ``caller``.

    A pending signal of the caller ends an interruptible sleep of the task, or the task itself if it does
    not sleep; any other sleep continues, unless the signal is fatal.

    Raise TaskDied(EFAULT) if an Oops kills the task, and TaskDied(EINTR) if it exits otherwise.
    """
    with kernel.entered() as shield:
        try:
            async with kernel.fork.user_task(caller.pid, comm(caller.pid)) as task:
                task.shield = shield
                task.fatal_signal = partial(fatal_signal_pending, caller.pid)
                task.user_registers = partial(user_registers, caller.pid)
                yield
        except TaskExit as exit_:
            number = errno.EFAULT if exit_.oops else errno.EINTR
            raise TaskDied(number, exit_.code or SIGKILL) from None
