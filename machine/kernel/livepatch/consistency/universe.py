# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a transition in guest memory, which ``klp_ftrace_handler`` reads. include/linux/livepatch.h,
kernel/livepatch/transition.c.

``func->transition`` tells the handler to look at the task, and ``task->patch_state`` tells it which
version of the function this task runs. kGraft calls the two states universes: a task in the old universe
runs none of the new functions, and a task in the new one runs none of the old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.livepatch.objects import klp_for_each_func, klp_for_each_object
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.structs import Struct

KLP_UNDEFINED, KLP_UNPATCHED, KLP_PATCHED = -1, 0, 1
"""Values of ``task_struct.patch_state`` and ``klp_target_state``."""
TIF_PATCH_PENDING = 1 << 13
"""The flag of ``thread_info`` that asks a task to convert to the target state."""


class Universes:
    """The patch in transition, the target state, and the state of each task and function."""

    def __init__(self, computer: Computer, sched: Scheduler) -> None:
        self._space = computer.space
        self._sched = sched
        self._patch_at = computer.symbol("klp_transition_patch")
        self._target_at = computer.symbol("klp_target_state")
        self.on_change: list[Callable[[], None]] = []
        """Called when a task or a function has changed its state."""
        self.patch = None
        self.target_state = KLP_UNDEFINED

    @property
    def patch(self) -> Struct | None:
        """``klp_transition_patch``: the patch in transition."""
        address = self._space.read_u64(self._patch_at)
        return self._space.view("struct klp_patch", address) if address else None

    @patch.setter
    def patch(self, patch: Struct | None) -> None:
        self._space.write_u64(self._patch_at, patch.address_ if patch is not None else 0)

    @property
    def target_state(self) -> int:
        """``klp_target_state``: the state that tasks convert to."""
        return int(self._space.read_s32(self._target_at))

    @target_state.setter
    def target_state(self, state: int) -> None:
        self._space.write_u32(self._target_at, state & 0xFFFFFFFF)

    def changed(self) -> None:
        """Call the functions in ``on_change``."""
        for listener in self.on_change:
            listener()

    # -- tasks ------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """Return all tasks, the idle task included."""
        return [*self._sched, self._sched.idle]

    @property
    def current(self) -> Task:
        """The task that runs."""
        return self._sched.current

    def remaining(self) -> list[Task]:
        """Return the tasks that are not in the target state."""
        target = self.target_state
        return [task for task in self.tasks() if task.struct.patch_state != target]

    def set_patch_states(self, state: int) -> None:
        """Set the state of all tasks, and clear their pending flags."""
        for task in self.tasks():
            task.struct.patch_state = state
        self.clear_pending()
        self.changed()

    @staticmethod
    def klp_patch_pending(task: Task) -> bool:
        """Return whether a task is asked to convert."""
        return bool(task.struct.thread_info.flags & TIF_PATCH_PENDING)

    def set_pending(self, task: Task) -> None:
        """Ask a task to convert as soon as it can."""
        task.struct.thread_info.flags |= TIF_PATCH_PENDING

    def clear_pending(self) -> None:
        """Clear the pending flags of all tasks."""
        for task in self.tasks():
            task.struct.thread_info.flags &= ~TIF_PATCH_PENDING

    def convert(self, task: Task) -> None:
        """Set the state of a task to the target state, and clear its pending flag."""
        task.struct.thread_info.flags &= ~TIF_PATCH_PENDING
        task.struct.patch_state = self.target_state
        self.changed()

    def klp_update_patch_state(self, task: Task) -> None:
        """Convert a task if it is asked to. Called where any task may convert: as it leaves the kernel."""
        if self.klp_patch_pending(task):
            self.convert(task)

    def klp_copy_process(self, child: Task, parent: Task | None) -> None:
        """Give a new task the state of its parent. A process of the host that enters the kernel (it has no
        parent here) gets that of the idle task, which converts as easily as a process outside the kernel."""
        parent = parent or self._sched.idle
        child.struct.patch_state = parent.struct.patch_state
        if self.klp_patch_pending(parent):
            self.set_pending(child)

    # -- functions --------------------------------------------------------------------------------

    def functions(self) -> Iterator[Struct]:
        """Yield the ``klp_func``s of the patch in transition, those of modules that are not loaded
        included."""
        patch = self.patch
        assert patch is not None, "no transition is under way"
        for obj in klp_for_each_object(self._space, patch):
            yield from klp_for_each_func(self._space, obj)

    def patched_functions(self) -> Iterator[Struct]:
        """Yield those of objects that are patched."""
        patch = self.patch
        assert patch is not None, "no transition is under way"
        for obj in klp_for_each_object(self._space, patch):
            if obj.patched:
                yield from klp_for_each_func(self._space, obj)

    def set_transition(self, value: bool) -> None:
        """Set ``func->transition`` of all functions: whether the handler looks at the state of the task."""
        for func in self.functions():
            func.transition = value
