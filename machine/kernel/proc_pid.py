# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of /proc/<pid>. fs/proc/base.c, fs/proc/array.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task


def proc_pid_stack(base: Base, task: Task) -> str:
    """Return the content of /proc/<pid>/stack."""
    return "".join(
        f"[<0>] {base.computer.symbols.sprint_backtrace(entry)}\n"
        for entry in base.stack.walk(task)
        if not base.sched.is_return(entry)
    )


def proc_pid_status(base: Base, task: Task) -> str:
    """Return the first lines of /proc/<pid>/status."""
    letter = {0: "R (running)", 1: "S (sleeping)", 2: "D (disk sleep)"}
    state = letter.get(int(task.state) & 3, "X (dead)")
    parent = base.sched.parent_pid(task)
    return (
        f"Name:\t{task.comm}\nState:\t{state}\nTgid:\t{task.pid}\nPid:\t{task.pid}\n"
        f"PPid:\t{parent}\n"
    )
