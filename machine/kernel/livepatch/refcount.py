# SPDX-License-Identifier: GPL-2.0-or-later
"""How many calls of some functions are under way. The counting is guest code, ``klp_refcount_enter`` at each
entry and ``klp_refcount_return`` at each return; here it is switched on and off, and the end of tasks that
never return is seen to.

Only an image that has that code can count: the embedded one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import service
from klpfs.machine.kernel.trace import ftrace
from klpfs.machine.kernel.trace.ftrace import Ftrace


class Counter:
    """``klp_refcount``, and an ftrace_ops that feeds it."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        slab: Slab,
        ftrace_: Ftrace,
        stack: StackTrace,
    ) -> None:
        self._space = computer.space
        self._slab = slab
        self._ftrace = ftrace_
        self._stack = stack
        self._handler = computer.symbols.lookup("klp_refcount_enter")
        self._ops = 0
        self._sites: list[int] = []
        self._lost = 0
        self.on_zero: Callable[[], None] | None = None
        """Called in the moment when the last call that was counted returns."""
        if self._handler is not None:
            self._refcount: Any = computer.variable("struct klp_refcount", "klp_refcount")
            sched.on_release.append(self._task_ended)

    @property
    def available(self) -> bool:
        """Whether the kernel image has code that counts."""
        return self._handler is not None

    @property
    def count(self) -> int:
        """How many counted calls are under way."""
        return int(self._refcount.count)

    def lost(self) -> bool:
        """Whether a call was not counted, for want of a place, since this was asked last."""
        lost = int(self._refcount.lost)
        changed, self._lost = lost != self._lost, lost
        return changed

    async def start(self, functions: Sequence[int]) -> bool:
        """Count the calls of ``functions`` from now on. Whether they were not being counted before: then
        calls are under way that are not in the count. A checkpoint then."""
        sites = [self._ftrace.location(function) for function in functions]
        if sites == self._sites:
            return False
        await self.stop()
        if not sites:  # an ops without a filter would cover everything
            return True
        size = self._space.types.sizeof("struct ftrace_ops")
        self._ops = self._slab.alloc(size, "klp_refcount")
        ops = self._space.view("struct ftrace_ops", self._ops)
        ops.func = self._handler
        ops.flags = ftrace.DYNAMIC | ftrace.SAVE_REGS
        self._sites = sites
        self._stack.hooked = self._return_address
        for site in sites:
            await self._ftrace.set_filter_ip(self._ops, site)
        await self._ftrace.register(self._ops)
        return True

    async def stop(self) -> None:
        """Count no calls any more. Those that were counted still return through here. A checkpoint if
        it was counting."""
        if not self._ops:
            return
        ops, self._ops, self._sites = self._ops, 0, []
        await self._ftrace.unregister(ops)
        self._ftrace.ftrace_free_filter(ops)
        self._slab.free(ops)

    def _return_address(self, slot: int) -> int:
        for call in self._calls():
            if call.slot == slot:
                return int(call.return_address)
        return 0

    def _calls(self) -> list[Any]:
        calls, at = [], self._refcount.calls
        while at:
            calls.append(self._space.view("struct klp_counted_call", int(at)))
            at = calls[-1].next
        return calls

    def _task_ended(self, task: Task) -> None:
        """``kprobe_flush_task``: it will not return."""
        if not self._refcount.count:
            return
        calls = self._calls()
        theirs = [call for call in calls if call.task == task.address]
        if not theirs:
            return
        self._refcount.calls = 0
        for call in reversed([call for call in calls if call not in theirs]):
            call.next, self._refcount.calls = self._refcount.calls, call.address_
        for call in theirs:
            call.next, self._refcount.unused = self._refcount.unused, call.address_
        self._refcount.count -= len(theirs)
        if not self._refcount.count:
            self.klp_refcount_zero()

    @service("klp_refcount_zero")
    def klp_refcount_zero(self) -> None:
        if self.on_zero is not None:
            self.on_zero()
