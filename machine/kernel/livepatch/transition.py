# SPDX-License-Identifier: GPL-2.0-or-later
"""From one version of the patched functions to the other and back. kernel/livepatch/transition.c.

Who moves when is the matter of the consistency model: `switching`. The default is today's kernel's, where a
task moves when its stack shows that it is in none of the functions that change: at the first try, at a
later one (once a second), or as it leaves the kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.livepatch.abi import Abi
from klpfs.machine.kernel.livepatch.callbacks import Callbacks
from klpfs.machine.kernel.livepatch.patch import Redirection, klp_for_each_object
from klpfs.machine.kernel.livepatch.switching import Switch
from klpfs.machine.kernel.livepatch.universe import (
    KLP_PATCHED,
    KLP_UNDEFINED,
    KLP_UNPATCHED,
    TIF_PATCH_PENDING,
    Universes,
)
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.printk.printk import LOGLEVEL_NOTICE, LOGLEVEL_WARNING, Printk
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.structs import Struct

__all__ = [
    "KLP_PATCHED", "KLP_UNDEFINED", "KLP_UNPATCHED", "RETRY_SECONDS", "TIF_PATCH_PENDING", "Transition",
]  # fmt: skip

RETRY_SECONDS = 1.0

_FILE = "kernel/livepatch/transition.c"


class Transition:
    """The one transition that may be under way. ``switch_of`` makes the way in which a patch goes over."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        universes: Universes,
        redirection: Redirection,
        callbacks: Callbacks,
        printk: Printk,
        dyndbg: DynamicDebug,
        switch_of: Callable[[Struct], Switch],
        retry_later: Callable[[], None],
        abi: Abi,
    ) -> None:
        self._space = computer.space
        self._sched = sched
        self._universes = universes
        self._redirection = redirection
        self._callbacks = callbacks
        self._printk = printk
        self._switch_of = switch_of
        self._retry_later = retry_later
        self._abi = abi
        self._switch: Switch
        self.on_replaced: Callable[[Struct], Awaitable[None]]
        """Takes off what a patch with ``replace`` has replaced; set by `core.Livepatch`."""
        debug = dyndbg.site
        self._completing = debug(
            f"{_FILE}:75", "klp_complete_transition", "'%s': completing %s transition"
        )
        self._canceling = debug(
            f"{_FILE}:148",
            "klp_cancel_transition",
            "'%s': canceling patching transition, going to unpatch",
        )
        self._initializing = debug(
            f"{_FILE}:521", "klp_init_transition", "'%s': initializing %s transition"
        )
        self._reversing = debug(
            f"{_FILE}:582", "klp_reverse_transition", "'%s': reversing transition from %s"
        )
        sched.on_fork.append(self.copy_process)
        sched.on_leave_kernel.append(self.update_patch_state)

    @property
    def patch(self) -> Struct | None:
        """``klp_transition_patch``."""
        return self._universes.patch

    @property
    def target_state(self) -> int:
        """``klp_target_state``."""
        return self._universes.target_state

    def _current(self) -> tuple[Struct, str]:
        patch = self.patch
        assert patch is not None, "no transition is under way"
        return patch, patch.mod.name.string()

    def _what(self) -> str:
        return "patching" if self.target_state == KLP_PATCHED else "unpatching"

    # -- the steps of a transition ----------------------------------------------------------------

    def init(self, patch: Struct, state: int) -> None:
        """``klp_init_transition``: the handler now asks each task for its state."""
        self._universes.patch = patch
        self._universes.target_state = state
        self._switch = self._switch_of(patch)
        self._initializing(patch.mod.name.string(), self._what())
        self._switch.prepare()

    def start(self) -> None:
        """``klp_start_transition``: every task is marked to move."""
        _, name = self._current()
        starting = self._abi.starting.format(patch=name, what=self._what())
        self._printk(LOGLEVEL_NOTICE, f"livepatch: {starting}")
        self._switch.start()

    async def try_complete(self) -> Struct | None:
        """``klp_try_complete_transition``: move whom it can. Returns the patch if that was everybody
        and the transition is complete; else it tries again in a second.

        Raises OSError(EBUSY) under a model that gives up: everything is as before the transition."""
        patch, name = self._current()
        switch, tries = self._switch, 1
        while not await switch.attempt():
            if not switch.tries:
                if self._abi.signals:
                    switch.nudge()
                self._retry_later()
                return None
            self._printk(LOGLEVEL_NOTICE, f"livepatch: '{name}': {switch.in_the_way}")
            if tries == switch.tries:
                await self._give_up()
            tries += 1
            await self._wait()
        await self.complete()
        return patch

    async def _wait(self) -> None:
        task = self._sched.current
        task.state = TaskState.UNINTERRUPTIBLE
        await task.wait(RETRY_SECONDS)

    async def _give_up(self) -> None:
        patch, name = self._current()
        self._printk(LOGLEVEL_WARNING, f"livepatch: '{name}': giving up {self._what()}")
        patch.enabled = not patch.enabled
        self._universes.target_state = 1 - self.target_state
        await self.complete()
        raise OSError(errno.EBUSY, "functions that change are in use")

    async def complete(self) -> None:
        """``klp_complete_transition``."""
        patch, name = self._current()
        target, what = self.target_state, self._what()
        self._completing(name, what)
        await self._switch.finish()
        if patch.replace and target == KLP_PATCHED:
            await self.on_replaced(patch)
        if target == KLP_UNPATCHED:
            await self._redirection.unpatch_objects(patch)
            await self._sched.synchronize_rcu()
        self._universes.set_transition(False)
        if target == KLP_PATCHED:
            await self._sched.synchronize_rcu()
        self._universes.put_all(KLP_UNDEFINED)
        for obj in klp_for_each_object(self._space, patch):
            if obj.name and not obj.mod:
                continue  # its module is not loaded
            if target == KLP_PATCHED:
                await self._callbacks.post_patch(obj)
            elif target == KLP_UNPATCHED:
                await self._callbacks.post_unpatch(obj)
        self._printk(LOGLEVEL_NOTICE, f"livepatch: '{name}': {what} complete")
        self._universes.target_state = KLP_UNDEFINED
        self._universes.patch = None
        self._universes.changed()

    async def cancel(self) -> None:
        """``klp_cancel_transition``: back at once, wherever the tasks are: enabling failed before any
        was told, or the code of the patch is about to go."""
        _, name = self._current()
        self._canceling(name)
        self._universes.target_state = KLP_UNPATCHED
        self._universes.clear_pending()
        await self.complete()

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
        self._universes.target_state = 1 - self.target_state
        self._universes.clear_pending()
        await self._sched.synchronize_rcu()
        self.start()

    def force(self) -> None:
        """``klp_force_transition``: declare every task moved; the next try completes."""
        self._printk(LOGLEVEL_WARNING, "livepatch: forcing remaining tasks to the patched state")
        self.move_all()

    def move_all(self) -> None:
        """Everything is on the target side now, wherever the tasks are."""
        self._switch.force()

    def module_joined(self) -> None:
        """A module has come, and functions of the patch with it."""
        self._switch.joined()

    # -- tasks ------------------------------------------------------------------------------------

    def pending(self, task: Task) -> bool:
        """``klp_patch_pending``."""
        return self._universes.pending(task)

    def update_patch_state(self, task: Task) -> None:
        """``klp_update_patch_state``: the task is at a point where it can move."""
        if self.pending(task):
            self._universes.move(task)

    def copy_process(self, child: Task, parent: Task | None) -> None:
        """``klp_copy_process``: a new task is where its parent is. A process of the host that enters
        the kernel is where the idle task is, which moves as easily as a process outside."""
        parent = parent or self._sched.idle
        child.struct.patch_state = parent.struct.patch_state
        if self.pending(parent):
            self._universes.ask(child)
