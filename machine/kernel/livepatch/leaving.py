# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task must have left before it may run the other version: the first axis of a consistency model.

- *function*: nothing. A call that runs finishes in the version that it began in.
- *patched set*: every function of the patch. What is on its stack tells.
- *kernel*: the kernel. A process of the host is in it from its first guest code until its operation ends;
  a kernel thread leaves it at its safe points, see `klpfs.machine.kernel.sched.freezer`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from klpfs.machine.kernel.livepatch.patch import Redirection
from klpfs.machine.kernel.livepatch.universe import KLP_UNPATCHED, Universes
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.structs import Struct

_FILE = "kernel/livepatch/transition.c"

Left = Callable[[Task], str]
"""What a task still has to leave: a sentence about it, or nothing."""


class _Range(NamedTuple):
    """Code that no task may be in when it moves, and the function that it is a version of."""

    start: int
    end: int
    old_name: str


class Leaving:
    """Looks at tasks, for one kernel."""

    def __init__(
        self,
        universes: Universes,
        redirection: Redirection,
        stack: StackTrace,
        freezer: Freezer,
        dyndbg: DynamicDebug,
    ) -> None:
        self._universes = universes
        self._redirection = redirection
        self._stack = stack
        self._freezer = freezer
        # Two that never speak here: a task that runs has been stopped before anybody looks at it.
        dyndbg.site(f"{_FILE}:316", "klp_try_switch_task", "%s: %s:%d is running")
        dyndbg.site(
            f"{_FILE}:329",
            "klp_try_switch_task",
            "%s: Unknown error code (%d) when trying to switch %s:%d",
        )
        self._unreliable = dyndbg.site(
            f"{_FILE}:320", "klp_try_switch_task", "%s: %s:%d has an unreliable stack"
        )
        self._sleeping = dyndbg.site(
            f"{_FILE}:324", "klp_try_switch_task", "%s: %s:%d is sleeping on function %s"
        )

    def function(self) -> Left:
        """Whoever asks may move."""
        return lambda _task: ""

    def kernel(self) -> Left:
        """It is outside, or at a safe point."""
        return lambda task: (
            "" if self._freezer.is_out(task) else f"{task.comm}:{task.pid} is in the kernel"
        )

    def kernel_but_current(self) -> Left:
        """The same; who has frozen the kernel is in it, and is not asked."""
        current, left = self._universes.current, self.kernel()
        return lambda task: "" if task is current else left(task)

    def patched_set(self) -> Left:
        """``klp_check_stack``: its stack can be trusted and has none of the code that changes."""
        ranges = self._changing_code()

        def left(task: Task) -> str:
            try:
                entries = self._stack.reliable(task)
            except OSError as error:
                assert error.errno == errno.EINVAL
                self._unreliable("klp_try_switch_task", task.comm, task.pid)
                return f"{task.comm}:{task.pid} has an unreliable stack"
            name = _found(entries, ranges)
            if name:
                self._sleeping("klp_try_switch_task", task.comm, task.pid, name)
                return f"{task.comm}:{task.pid} is sleeping on function {name}"
            return ""

        return left

    def patched_set_standing(self) -> Left:
        """The same while the machine stands still. A stack that cannot be trusted is searched for whatever
        may be an address in that code, as kSplice does."""
        ranges = self._changing_code()

        def left(task: Task) -> str:
            try:
                entries = self._stack.reliable(task)
            except OSError:
                entries = self._stack.possible(task)
            name = _found(entries, ranges)
            return f"{task.comm}:{task.pid} is in function {name}" if name else ""

        return left

    def _changing_code(self) -> list[_Range]:
        """For each function of the patch, the code that a task must have left."""
        universes = self._universes
        return [
            self._changing_code_of(func)
            for func in universes.patched_functions()
            if not universes.is_immediate(func)
        ]

    def _changing_code_of(self, func: Struct) -> _Range:
        """``klp_check_stack_func``, without the comparison."""
        name = func.old_name.string()
        if self._universes.target_state == KLP_UNPATCHED:
            return _Range(func.new_func, func.new_func + func.new_size, name)
        previous = self._redirection.below(func)
        if previous is None:
            return _Range(func.old_func, func.old_func + func.old_size, name)
        return _Range(previous.new_func, previous.new_func + previous.new_size, name)


def _found(entries: list[int], ranges: list[_Range]) -> str:
    """The first function, in the order of the patch, that has one of the addresses."""
    for start, end, old_name in ranges:
        if any(start <= address < end for address in entries):
            return old_name
    return ""
