# SPDX-License-Identifier: GPL-2.0-or-later
"""Which version of the functions in transition each task runs: the state in guest memory that
``klp_ftrace_handler`` reads, and that a transition changes. include/linux/livepatch.h.

kGraft calls the two sides universes: a task in the old one sees no new function, and the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.livepatch.patch import klp_for_each_func, klp_for_each_object
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.structs import Struct

KLP_UNDEFINED, KLP_UNPATCHED, KLP_PATCHED = -1, 0, 1
"""``task_struct.patch_state`` and ``klp_target_state``, include/linux/livepatch.h."""
TIF_PATCH_PENDING = 1 << 13


class Universes:
    """``klp_transition_patch``, ``klp_target_state``, the state of each task and of each function."""

    def __init__(self, computer: Computer, sched: Scheduler) -> None:
        self._space = computer.space
        self._sched = sched
        self._patch_at = computer.symbol("klp_transition_patch")
        self._target_at = computer.symbol("klp_target_state")
        self.on_change: list[Callable[[], None]] = []
        """Called when tasks or functions have changed sides."""
        self.is_immediate: Callable[[Struct], bool] = lambda func: False
        """Whether tasks need not leave a function before they move (a member of ``klp_func`` once)."""
        self.patch = None
        self.target_state = KLP_UNDEFINED

    @property
    def patch(self) -> Struct | None:
        """``klp_transition_patch``."""
        address = self._space.read_u64(self._patch_at)
        return self._space.view("struct klp_patch", address) if address else None

    @patch.setter
    def patch(self, patch: Struct | None) -> None:
        self._space.write_u64(self._patch_at, patch.address_ if patch is not None else 0)

    @property
    def target_state(self) -> int:
        """``klp_target_state``."""
        return int(self._space.read_s32(self._target_at))

    @target_state.setter
    def target_state(self, state: int) -> None:
        self._space.write_u32(self._target_at, state & 0xFFFFFFFF)

    def changed(self) -> None:
        """Tell who wants to know."""
        for listener in self.on_change:
            listener()

    # -- tasks ------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """All tasks, the idle one too."""
        return [*self._sched, self._sched.idle]

    @property
    def current(self) -> Task:
        """The task that asks."""
        return self._sched.current

    def put_all(self, state: int) -> None:
        """Every task is in ``state``, and none is asked to move."""
        for task in self.tasks():
            task.struct.patch_state = state
        self.clear_pending()
        self.changed()

    def behind(self) -> list[Task]:
        """The tasks that are not in the target state."""
        target = self.target_state
        return [task for task in self.tasks() if task.struct.patch_state != target]

    @staticmethod
    def pending(task: Task) -> bool:
        """``klp_patch_pending``."""
        return bool(task.struct.thread_info.flags & TIF_PATCH_PENDING)

    def clear_pending(self) -> None:
        """No task is asked to move."""
        for task in self.tasks():
            task.struct.thread_info.flags &= ~TIF_PATCH_PENDING

    def ask(self, task: Task) -> None:
        """The task shall move as soon as it can."""
        task.struct.thread_info.flags |= TIF_PATCH_PENDING

    def move(self, task: Task) -> None:
        """The task is in the target state from now on."""
        task.struct.thread_info.flags &= ~TIF_PATCH_PENDING
        task.struct.patch_state = self.target_state
        self.changed()

    # -- functions --------------------------------------------------------------------------------

    def functions(self) -> Iterator[Struct]:
        """The ``klp_func``s of the patch, also those of modules that are not loaded."""
        patch = self.patch
        assert patch is not None, "no transition is under way"
        for obj in klp_for_each_object(self._space, patch):
            yield from klp_for_each_func(self._space, obj)

    def patched_functions(self) -> Iterator[Struct]:
        """Those that are on their stacks."""
        patch = self.patch
        assert patch is not None, "no transition is under way"
        for obj in klp_for_each_object(self._space, patch):
            if obj.patched:
                yield from klp_for_each_func(self._space, obj)

    def set_transition(self, value: bool) -> None:
        """Whether the handler shall ask each task for its state."""
        for func in self.functions():
            func.transition = value
