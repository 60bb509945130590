# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving every task, one by one, to the patched state or back. kernel/livepatch/transition.c.

A task moves when its stack shows that it is in none of the functions that change: at the first try, at
a later one (once a second), or as it leaves the kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from machine.computer import Computer
from machine.kernel import printk as log
from machine.kernel.dyndbg import DynamicDebug
from machine.kernel.livepatch.abi import Abi
from machine.kernel.livepatch.callbacks import Callbacks
from machine.kernel.livepatch.patch import Redirection, klp_for_each_func, klp_for_each_object
from machine.kernel.printk import Printk
from machine.kernel.sched import Scheduler, Task, TaskState
from machine.kernel.stacktrace import StackTrace
from machine.structs import Struct

KLP_UNDEFINED, KLP_UNPATCHED, KLP_PATCHED = -1, 0, 1
"""``task_struct.patch_state`` and ``klp_target_state``, include/linux/livepatch.h."""
TIF_PATCH_PENDING = 1 << 13
SIGNALS_TIMEOUT = 15
"""After so many tries in vain, and again after as many more, the tasks in the way are signalled."""
RETRY_SECONDS = 1.0

_FILE = "kernel/livepatch/transition.c"


class _Range(NamedTuple):
    """Code that no task may be in when it moves, and the function that it is a version of."""

    start: int
    end: int
    old_name: str


class Transition:
    """The one transition that may be under way."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        stack: StackTrace,
        redirection: Redirection,
        callbacks: Callbacks,
        printk: Printk,
        dyndbg: DynamicDebug,
        retry_later: Callable[[], None],
        abi: Abi,
    ) -> None:
        self._space = computer.space
        self._sched = sched
        self._stack = stack
        self._redirection = redirection
        self._callbacks = callbacks
        self._printk = printk
        self._retry_later = retry_later
        self._abi = abi
        self._patch_at = computer.symbol("klp_transition_patch")
        self._target_at = computer.symbol("klp_target_state")
        self._signals_cnt = 0
        self.on_replaced: Callable[[Struct], Awaitable[None]]
        """Takes off what a patch with ``replace`` has replaced; set by `core.Livepatch`."""
        self.is_immediate: Callable[[Struct], bool] = lambda func: False
        """Whether tasks need not leave a function before they move."""
        self._space.write_u64(self._patch_at, 0)
        self.target_state = KLP_UNDEFINED
        debug = dyndbg.site
        self._completing = debug(
            f"{_FILE}:75", "klp_complete_transition", "'%s': completing %s transition"
        )
        self._canceling = debug(
            f"{_FILE}:148",
            "klp_cancel_transition",
            "'%s': canceling patching transition, going to unpatch",
        )
        # Two that never speak here: a task that runs has been stopped before anybody looks at it.
        debug(f"{_FILE}:316", "klp_try_switch_task", "%s: %s:%d is running")
        self._unreliable = debug(
            f"{_FILE}:320", "klp_try_switch_task", "%s: %s:%d has an unreliable stack"
        )
        self._sleeping = debug(
            f"{_FILE}:324", "klp_try_switch_task", "%s: %s:%d is sleeping on function %s"
        )
        debug(
            f"{_FILE}:329",
            "klp_try_switch_task",
            "%s: Unknown error code (%d) when trying to switch %s:%d",
        )
        self._initializing = debug(
            f"{_FILE}:521", "klp_init_transition", "'%s': initializing %s transition"
        )
        self._reversing = debug(
            f"{_FILE}:582", "klp_reverse_transition", "'%s': reversing transition from %s"
        )
        sched.on_fork.append(self.copy_process)
        sched.on_leave_kernel.append(self.update_patch_state)

    # -- state in guest memory --------------------------------------------------------------------

    @property
    def patch(self) -> Struct | None:
        """``klp_transition_patch``."""
        address = self._space.read_u64(self._patch_at)
        return self._space.view("struct klp_patch", address) if address else None

    @property
    def target_state(self) -> int:
        """``klp_target_state``."""
        return int(self._space.read_s32(self._target_at))

    @target_state.setter
    def target_state(self, state: int) -> None:
        self._space.write_u32(self._target_at, state & 0xFFFFFFFF)

    def _current(self) -> tuple[Struct, str]:
        patch = self.patch
        assert patch is not None, "no transition is under way"
        return patch, patch.mod.name.string()

    def _tasks(self) -> list[Task]:
        return [*self._sched, self._sched.idle]

    # -- the steps of a transition ----------------------------------------------------------------

    def init(self, patch: Struct, state: int) -> None:
        """``klp_init_transition``: the handler now asks each task for its state."""
        self._space.write_u64(self._patch_at, patch.address_)
        self.target_state = state
        name = patch.mod.name.string()
        self._initializing(name, "patching" if state == KLP_PATCHED else "unpatching")
        for task in self._tasks():
            task.struct.patch_state = KLP_UNPATCHED if state == KLP_PATCHED else KLP_PATCHED
        self._set_transition(patch, True)

    def _set_transition(self, patch: Struct, value: bool) -> None:
        for obj in klp_for_each_object(self._space, patch):
            for func in klp_for_each_func(self._space, obj):
                func.transition = value

    def start(self) -> None:
        """``klp_start_transition``: every task is marked to move."""
        _, name = self._current()
        target = self.target_state
        what = "patching" if target == KLP_PATCHED else "unpatching"
        self._printk(log.NOTICE, "livepatch: " + self._abi.starting.format(patch=name, what=what))
        for task in self._tasks():
            if task.struct.patch_state != target:
                task.struct.thread_info.flags |= TIF_PATCH_PENDING
        self._signals_cnt = 0

    async def try_complete(self) -> Struct | None:
        """``klp_try_complete_transition``: move whom it can. Returns the patch if that was everybody
        and the transition is complete; else it tries again in a second."""
        ranges = self._changing_code()
        stuck = [task for task in self._tasks() if not self._try_switch_task(task, ranges)]
        if stuck:
            if self._abi.signals and self._signals_cnt and not self._signals_cnt % SIGNALS_TIMEOUT:
                self._send_signals()
            self._signals_cnt += 1
            self._retry_later()
            return None
        patch, _ = self._current()
        await self.complete()
        return patch

    async def complete(self) -> None:
        """``klp_complete_transition``."""
        patch, name = self._current()
        target = self.target_state
        what = "patching" if target == KLP_PATCHED else "unpatching"
        self._completing(name, what)
        if patch.replace and target == KLP_PATCHED:
            await self.on_replaced(patch)
        if target == KLP_UNPATCHED:
            await self._redirection.unpatch_objects(patch)
            await self._sched.synchronize_rcu()
        self._set_transition(patch, False)
        if target == KLP_PATCHED:
            await self._sched.synchronize_rcu()
        for task in self._tasks():
            task.struct.patch_state = KLP_UNDEFINED
        for obj in klp_for_each_object(self._space, patch):
            if obj.name and not obj.mod:
                continue  # its module is not loaded
            if target == KLP_PATCHED:
                await self._callbacks.post_patch(obj)
            elif target == KLP_UNPATCHED:
                await self._callbacks.post_unpatch(obj)
        self._printk(log.NOTICE, f"livepatch: '{name}': {what} complete")
        self.target_state = KLP_UNDEFINED
        self._space.write_u64(self._patch_at, 0)

    async def cancel(self) -> None:
        """``klp_cancel_transition``: back at once, wherever the tasks are: enabling failed before any
        was told, or the code of the patch is about to go."""
        _, name = self._current()
        self._canceling(name)
        self.target_state = KLP_UNPATCHED
        self._clear_pending()
        await self.complete()

    def _clear_pending(self) -> None:
        for task in self._tasks():
            task.struct.thread_info.flags &= ~TIF_PATCH_PENDING

    async def reverse(self) -> None:
        """``klp_reverse_transition``: back to where it came from."""
        patch, name = self._current()
        way = (
            "patching to unpatching"
            if self.target_state == KLP_PATCHED
            else "unpatching to patching"
        )
        self._reversing(name, way)
        patch.enabled = not patch.enabled
        self.target_state = 1 - self.target_state
        self._clear_pending()
        await self._sched.synchronize_rcu()
        self.start()

    def force(self) -> None:
        """``klp_force_transition``: declare every task moved; the next try completes."""
        self._printk(log.WARNING, "livepatch: forcing remaining tasks to the patched state")
        self.move_all()

    def move_all(self) -> None:
        """Every task is in the target state now, wherever it is."""
        for task in self._tasks():
            self.update_patch_state(task)

    # -- tasks ------------------------------------------------------------------------------------

    @staticmethod
    def pending(task: Task) -> bool:
        """``klp_patch_pending``."""
        return bool(task.struct.thread_info.flags & TIF_PATCH_PENDING)

    def update_patch_state(self, task: Task) -> None:
        """``klp_update_patch_state``: the task is at a point where it can move."""
        if self.pending(task):
            task.struct.thread_info.flags &= ~TIF_PATCH_PENDING
            task.struct.patch_state = self.target_state

    def copy_process(self, child: Task, parent: Task | None) -> None:
        """``klp_copy_process``: a new task is where its parent is. A process of the host that enters
        the kernel is where the idle task is, which moves as easily as a process outside."""
        parent = parent or self._sched.idle
        child.struct.patch_state = parent.struct.patch_state
        if self.pending(parent):
            child.struct.thread_info.flags |= TIF_PATCH_PENDING

    def _changing_code(self) -> list[_Range]:
        """For each function of the patch, the code that a task must have left."""
        patch, _ = self._current()
        ranges = []
        for obj in klp_for_each_object(self._space, patch):
            if not obj.patched:
                continue
            for func in klp_for_each_func(self._space, obj):
                if not self.is_immediate(func):
                    ranges.append(self._changing_code_of(func))
        return ranges

    def _changing_code_of(self, func: Struct) -> _Range:
        """``klp_check_stack_func``, without the comparison."""
        name = func.old_name.string()
        if self.target_state == KLP_UNPATCHED:
            return _Range(func.new_func, func.new_func + func.new_size, name)
        previous = self._redirection.below(func)
        if previous is None:
            return _Range(func.old_func, func.old_func + func.old_size, name)
        return _Range(previous.new_func, previous.new_func + previous.new_size, name)

    def _try_switch_task(self, task: Task, ranges: list[_Range]) -> bool:
        """``klp_try_switch_task``: whether the task is in the target state now."""
        target = self.target_state
        if task.struct.patch_state == target:
            return True
        try:
            entries = self._stack.reliable(task)
        except OSError as error:
            assert error.errno == errno.EINVAL
            self._unreliable("klp_try_switch_task", task.comm, task.pid)
            return False
        for start, end, old_name in ranges:
            if any(start <= address < end for address in entries):
                self._sleeping("klp_try_switch_task", task.comm, task.pid, old_name)
                return False
        task.struct.thread_info.flags &= ~TIF_PATCH_PENDING
        task.struct.patch_state = target
        return True

    def _send_signals(self) -> None:
        """``klp_send_signals``: tasks that sleep interruptibly come out of it."""
        if self._signals_cnt == SIGNALS_TIMEOUT:
            self._printk(log.NOTICE, "livepatch: signaling remaining tasks")
        for task in self._sched:
            if self.pending(task):
                if not task.is_kthread:
                    task.signal_pending = True
                task.wake(TaskState.INTERRUPTIBLE)
