# SPDX-License-Identifier: GPL-2.0-or-later
"""Switching one task after the other, each for all functions. kernel/livepatch/transition.c."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from klpfs.machine.kernel.livepatch.common import Messages
from klpfs.machine.kernel.livepatch.consistency.leaving import Blocker, Condition
from klpfs.machine.kernel.livepatch.consistency.switch import Switch
from klpfs.machine.kernel.livepatch.consistency.universe import Universes
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.sched.task import TaskState

SIGNALS_TIMEOUT = 15
"""The remaining tasks are signalled after this number of failed attempts, and again after as many."""


class ByThread(Switch):
    """Converts a task at an attempt if the condition allows it, and when it leaves the kernel."""

    def __init__(self, universes: Universes, condition: Condition, messages: Messages) -> None:
        super().__init__(universes)
        self._condition = condition
        self._messages = messages
        self._klp_signals_cnt = 0

    def start(self) -> None:
        for task in self._universes.remaining():
            self._universes.set_pending(task)
        self._klp_signals_cnt = 0

    async def attempt(self) -> bool:
        blocker = self._condition()
        converted = [
            self.klp_try_switch_task(task, blocker) for task in self._universes.remaining()
        ]
        return all(converted)

    def klp_try_switch_task(self, task: Task, blocker: Blocker) -> bool:
        """Convert a task if it may. The kernel calls ``klp_check_and_switch_task`` to do so while the task
        cannot run; here no other task runs anyway."""
        reason = blocker(task)
        if reason:
            self.blocker = reason
            return False
        self._universes.convert(task)
        return True

    def attempt_failed(self) -> None:
        if self._klp_signals_cnt and not self._klp_signals_cnt % SIGNALS_TIMEOUT:
            self.klp_send_signals()
        self._klp_signals_cnt += 1

    def klp_send_signals(self) -> None:
        """Wake the remaining tasks that sleep interruptibly."""
        if self._klp_signals_cnt == SIGNALS_TIMEOUT:
            self._messages.pr_notice("signaling remaining tasks")
        for task in self._universes.tasks():
            if self._universes.klp_patch_pending(task):
                if not task.is_kthread:
                    task.signal_pending = True
                task.wake(TaskState.INTERRUPTIBLE)

    def force(self) -> None:
        for task in self._universes.tasks():
            self._universes.klp_update_patch_state(task)


class ByThreadInTurn(ByThread):
    """Converts each task in its turn, whatever it does. Other tasks run between two conversions."""

    def __init__(
        self,
        universes: Universes,
        condition: Condition,
        messages: Messages,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(universes, condition, messages)
        self._pause = pause

    async def attempt(self) -> bool:
        while remaining := self._universes.remaining():
            self._universes.convert(remaining[0])
            await self._pause()
        return True


class ByThreadOutside(ByThread):
    """Converts each task when it leaves the kernel or comes to a safe point; those outside, at an attempt."""

    def __init__(
        self, universes: Universes, condition: Condition, messages: Messages, freezer: Freezer
    ) -> None:
        super().__init__(universes, condition, messages)
        self._freezer = freezer

    def start(self) -> None:
        super().start()
        self._freezer.on_safe_point = self._universes.klp_update_patch_state

    async def finish(self) -> None:
        self._freezer.on_safe_point = None
