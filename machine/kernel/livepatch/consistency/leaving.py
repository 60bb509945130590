# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task must have left before it may convert: the first axis of a consistency model.

- *function*: nothing. A call that is under way finishes in the version in which it began.
- *patched set*: every function that the patch changes. The stack of the task shows that.
- *kernel*: the kernel. A process of the host is in it from the first guest code that it runs until its
  operation ends; a kernel thread leaves it at its safe points, see `klpfs.machine.kernel.sched.freezer`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from klpfs.machine.kernel.livepatch.consistency.universe import KLP_UNPATCHED, Universes
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.structs import Struct

_FILE = "kernel/livepatch/transition.c"

Blocker = Callable[[Task], str]
"""Return what keeps a task from converting, as a sentence, or an empty string if it may convert."""
Condition = Callable[[], Blocker]
"""Begin a check of tasks. The `Blocker` that is returned is valid until a task runs or the patch changes."""


class _Range(NamedTuple):
    """Code that no task may be in when it converts, and the name of the function that it is a version of."""

    start: int
    end: int
    old_name: str


class Leaving:
    """The conditions, for one kernel. Each method below is a `Condition`."""

    def __init__(
        self,
        *,
        universes: Universes,
        functions: PatchedFunctions,
        stack: StackTrace,
        freezer: Freezer,
        dyndbg: DynamicDebug,
    ) -> None:
        self._universes = universes
        self._functions = functions
        self._stack = stack
        self._freezer = freezer
        # The first two are never used: no other task runs while tasks are checked.
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

    def function(self) -> Blocker:
        """Every task may convert."""
        return lambda _task: ""

    def kernel(self) -> Blocker:
        """The task is outside the kernel, or at a safe point."""
        return lambda task: (
            "" if self._freezer.is_out(task) else f"{task.comm}:{task.pid} is in the kernel"
        )

    def kernel_but_current(self) -> Blocker:
        """Like `kernel`, but ignore the current task, which froze the kernel."""
        current, blocker = self._universes.current, self.kernel()
        return lambda task: "" if task is current else blocker(task)

    def patched_set(self) -> Blocker:
        """``klp_check_stack``: the stack of the task is reliable and has none of the code that changes."""
        ranges = self._changing_code()

        def blocker(task: Task) -> str:
            try:
                entries = self._stack.reliable(task)
            except OSError as error:
                assert error.errno == errno.EINVAL
                self._unreliable("klp_try_switch_task", task.comm, task.pid)
                return f"{task.comm}:{task.pid} has an unreliable stack"
            name = _find(entries, ranges)
            if name:
                self._sleeping("klp_try_switch_task", task.comm, task.pid, name)
                return f"{task.comm}:{task.pid} is sleeping on function {name}"
            return ""

        return blocker

    def patched_set_stopped(self) -> Blocker:
        """Like `patched_set`, while the machine is stopped. A stack that is not reliable is searched for
        everything that may be an address in the code that changes, as kSplice does."""
        ranges = self._changing_code()

        def blocker(task: Task) -> str:
            try:
                entries = self._stack.reliable(task)
            except OSError:
                entries = self._stack.possible(task)
            name = _find(entries, ranges)
            return f"{task.comm}:{task.pid} is in function {name}" if name else ""

        return blocker

    def _changing_code(self) -> list[_Range]:
        """Return, for each function of the patch, the code that a task must have left. A function that is
        ``immediate`` (Linux 4.12) has none."""
        return [
            self._changing_code_of(func)
            for func in self._universes.patched_functions()
            if not func.immediate
        ]

    def _changing_code_of(self, func: Struct) -> _Range:
        """The part of ``klp_check_stack_func`` that does not depend on the task."""
        name = func.old_name.string()
        if self._universes.target_state == KLP_UNPATCHED:
            return _Range(func.new_func, func.new_func + func.new_size, name)
        previous = self._functions.previous(func)
        if previous is None:
            return _Range(func.old_func, func.old_func + func.old_size, name)
        return _Range(previous.new_func, previous.new_func + previous.new_size, name)


def _find(entries: list[int], ranges: list[_Range]) -> str:
    """Return the first function, in the order of the patch, that has one of the addresses; or nothing."""
    for start, end, old_name in ranges:
        if any(start <= address < end for address in entries):
            return old_name
    return ""
