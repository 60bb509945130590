# SPDX-License-Identifier: GPL-2.0-or-later
"""The transition of a patch from one state to the other. kernel/livepatch/transition.c.

The consistency model of the patch decides which task or function converts when: `consistency`. By default
a task converts when its stack has none of the functions that change: at the first attempt, at a later one
(there is one each second), or when the task leaves the kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

from klpfs.machine.kernel.livepatch.callbacks import Callbacks
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.consistency.choice import Consistency
from klpfs.machine.kernel.livepatch.consistency.switch import Switch
from klpfs.machine.kernel.livepatch.consistency.switches import Switches
from klpfs.machine.kernel.livepatch.consistency.universe import (
    KLP_PATCHED,
    KLP_UNDEFINED,
    KLP_UNPATCHED,
)
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_object,
    klp_is_object_loaded,
    patch_name,
)
from klpfs.machine.kernel.livepatch.patch import PatchedFunctions
from klpfs.machine.kernel.livepatch.replace import AtomicReplace
from klpfs.machine.kernel.printk.dyndbg import DynamicDebug
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.work.workqueue import Workqueues
from klpfs.machine.structs import Struct

RETRY_SECONDS = 1.0
"""The time between two attempts, in guest seconds."""

OnComplete = Callable[[Struct], None]
"""Called with a patch whose transition is complete, except by `Transition.klp_cancel_transition`: frees
it, or releases its module."""

_FILE = "kernel/livepatch/transition.c"


class Transition(Protocol):
    """What the core asks of a transition; there is one at a time. The caller holds klp_mutex.

    `older.immediate.ImmediateTransition` is for kernels before 4.12.
    """

    def klp_init_transition(self, patch: Struct, state: int) -> None:
        """Begin a transition of ``patch`` to ``state``. No task converts before `klp_start_transition`."""

    def klp_start_transition(self) -> None:
        """Let tasks convert."""

    async def klp_try_complete_transition(self) -> None:
        """Convert what may convert, and complete the transition if that is everything. Otherwise try again
        later. Raises OSError(EBUSY) under a model that gives up, with everything as before the transition."""

    async def klp_cancel_transition(self) -> None:
        """Complete a transition to the patched state in the unpatched state at once: enabling has failed
        before it was started, or the code of the patch is about to be freed."""

    async def klp_reverse_transition(self) -> None:
        """Exchange the initial state and the target state."""

    def klp_force_transition(self) -> None:
        """Convert everything, whatever the tasks do. The next attempt completes the transition."""

    def module_joined(self) -> None:
        """Called when a module with functions of the patch has been loaded and patched."""


class ConsistentTransition:
    """A transition by the consistency model of the patch."""

    def __init__(
        self,
        common: Common,
        *,
        switches: Switches,
        consistency: Consistency,
        functions: PatchedFunctions,
        callbacks: Callbacks,
        replace: AtomicReplace,
        workqueues: Workqueues,
        dyndbg: DynamicDebug,
        on_complete: OnComplete,
    ) -> None:
        self._space = common.space
        self._sched = common.base.sched
        self._universes = common.universes
        self._switches = switches
        self._consistency = consistency
        self._patches = common.patches
        self._functions = functions
        self._callbacks = callbacks
        self._replace = replace
        self._klp_mutex = common.klp_mutex
        self._workqueues = workqueues
        self._on_complete = on_complete
        self._messages = common.messages
        self._abi = common.abi
        self._switch: Switch
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
        common.base.sched.on_fork.append(common.universes.klp_copy_process)
        common.base.sched.on_leave_kernel.append(common.universes.klp_update_patch_state)

    def _current(self) -> tuple[Struct, str]:
        patch = self._universes.patch
        assert patch is not None, "no transition is under way"
        return patch, patch_name(patch)

    def _what(self) -> str:
        return "patching" if self._universes.target_state == KLP_PATCHED else "unpatching"

    # -- from the beginning to the end ------------------------------------------------------------

    def klp_init_transition(self, patch: Struct, state: int) -> None:
        self._universes.patch = patch
        self._universes.target_state = state
        self._switch = self._switches.of(self._consistency.of(patch))
        self._initializing(patch_name(patch), self._what())
        self._switch.prepare()

    def klp_start_transition(self) -> None:
        _, name = self._current()
        self._messages.pr_notice(self._abi.starting.format(patch=name, what=self._what()))
        self._switch.start()

    async def klp_try_complete_transition(self) -> None:
        patch, name = self._current()
        switch, tries = self._switch, 1
        if patch.immediate:  # Linux 4.12
            switch.force()
        while not await switch.attempt():
            if not switch.tries:
                if self._abi.signals:
                    switch.attempt_failed()
                self._workqueues.queue_delayed(self.klp_transition_work_fn, RETRY_SECONDS)
                return
            self._messages.pr_notice(f"'{name}': {switch.blocker}")
            if tries == switch.tries:
                await self._give_up()
            tries += 1
            await self._wait()
        await self.klp_complete_transition()
        self._on_complete(patch)

    async def klp_transition_work_fn(self) -> None:
        """Make another attempt; called by a worker."""
        async with self._klp_mutex.held():
            if self._universes.patch is not None:
                await self.klp_try_complete_transition()

    async def _wait(self) -> None:
        task = self._sched.current
        task.state = TaskState.UNINTERRUPTIBLE
        await task.wait(RETRY_SECONDS)

    async def _give_up(self) -> None:
        """Go back to the initial state, where everything still is. Raises OSError(EBUSY)."""
        patch, name = self._current()
        self._messages.pr_warn(f"'{name}': giving up {self._what()}")
        patch.enabled = not patch.enabled
        self._universes.target_state = 1 - self._universes.target_state
        await self.klp_complete_transition()
        raise OSError(errno.EBUSY, "functions that change are in use")

    async def klp_complete_transition(self) -> None:
        """Clean up, and call the callbacks: every task and function is in the target state."""
        universes = self._universes
        patch, name = self._current()
        target, what = universes.target_state, self._what()
        self._completing(name, what)
        await self._switch.finish()
        if patch.replace and target == KLP_PATCHED:
            await self._replace.klp_unpatch_replaced_patches(patch)
            await self._replace.klp_discard_nops(patch)
        if target == KLP_UNPATCHED:
            await self._functions.klp_unpatch_objects(patch)
            await self.klp_synchronize_transition()
        universes.set_transition(False)
        if target == KLP_PATCHED:
            await self.klp_synchronize_transition()
        universes.set_patch_states(KLP_UNDEFINED)
        for obj in klp_for_each_object(self._space, patch):
            if klp_is_object_loaded(obj):
                if target == KLP_PATCHED:
                    await self._callbacks.klp_post_patch_callback(obj)
                elif target == KLP_UNPATCHED:
                    await self._callbacks.klp_post_unpatch_callback(obj)
        self._messages.pr_notice(f"'{name}': {what} complete")
        universes.target_state = KLP_UNDEFINED
        universes.patch = None
        universes.changed()

    async def klp_synchronize_transition(self) -> None:
        """Wait until no task is in ``klp_ftrace_handler``. The kernel runs an empty function,
        ``klp_sync``, on each CPU; there is one CPU here, and a grace period does."""
        await self._sched.synchronize_rcu()

    # -- other ends -------------------------------------------------------------------------------

    async def klp_cancel_transition(self) -> None:
        _, name = self._current()
        self._canceling(name)
        self._universes.target_state = KLP_UNPATCHED
        self._universes.clear_pending()
        await self.klp_complete_transition()

    async def klp_reverse_transition(self) -> None:
        patch, name = self._current()
        what = self._what()
        other = "unpatching" if what == "patching" else "patching"
        self._reversing(name, f"{what} to {other}")
        patch.enabled = not patch.enabled
        self._universes.target_state = 1 - self._universes.target_state
        self._universes.clear_pending()
        await self.klp_synchronize_transition()
        self.klp_start_transition()

    def klp_force_transition(self) -> None:
        patch, _ = self._current()
        self._messages.pr_warn("forcing remaining tasks to the patched state")
        self._switch.force()
        # Tasks may be in the code of what is removed: its module is never released.
        if self._universes.target_state == KLP_UNPATCHED:
            patch.forced = True
        elif patch.replace:
            for other in self._patches:
                if other != patch:
                    other.forced = True

    def module_joined(self) -> None:
        self._switch.module_joined()
