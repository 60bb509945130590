# SPDX-License-Identifier: GPL-2.0-or-later
"""The number of calls of some functions that are under way.

The counting is guest code (machine/guest/refcount.c), which only the embedded image has:
``klp_refcount_enter`` at each entry and ``klp_refcount_return`` at each return. This file starts and
stops it, and takes back the calls of tasks that end before they return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import service
from klpfs.machine.kernel.trace import ftrace
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.structs import Struct


class Counter:
    """``klp_refcount``, and the ftrace_ops whose handler counts."""

    def __init__(
        self,
        base: Base,
        *,
        ftrace_: Ftrace,
        stack: StackTrace,
    ) -> None:
        computer = base.computer
        self._space = computer.space
        self._slab = base.slab
        self._ftrace = ftrace_
        self._stack = stack
        self._handler = computer.symbols.lookup("klp_refcount_enter")
        self._ops = 0
        self._sites: list[int] = []
        self._lost = 0
        self.on_zero: Callable[[], None] | None = None
        """Called when the last call that was counted returns."""
        if self._handler is not None:
            self._refcount: Struct = computer.variable("struct klp_refcount", "klp_refcount")
            base.sched.on_release.append(self._task_ended)

    @property
    def available(self) -> bool:
        """Whether the kernel image has code that counts."""
        return self._handler is not None

    @property
    def count(self) -> int:
        """The number of counted calls that are under way."""
        return int(self._refcount.count)

    def lost(self) -> bool:
        """Return whether a call has not been counted since the last time, because there was no free
        ``klp_counted_call``."""
        lost = int(self._refcount.lost)
        changed, self._lost = lost != self._lost, lost
        return changed

    async def start(self, functions: Sequence[int]) -> bool:
        """Count the calls of ``functions`` (addresses) from now on. Return False if they are being counted
        already; otherwise there may be calls under way that are not in the count. A checkpoint, unless it
        returns False."""
        sites = [self._ftrace.location(function) for function in functions]
        if sites == self._sites:
            return False
        await self.stop()
        if not sites:  # an ops without a filter would cover all functions
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
        """Stop counting. Calls that have been counted still return through ``klp_refcount_return``. A
        checkpoint if it was counting."""
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

    def _calls(self) -> list[Struct]:
        calls, at = [], self._refcount.calls
        while at:
            calls.append(self._space.view("struct klp_counted_call", int(at)))
            at = calls[-1].next
        return calls

    def _task_ended(self, task: Task) -> None:
        """Take back the calls of a task that will not return (``kprobe_flush_task``)."""
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
        """Call ``on_zero``."""
        if self.on_zero is not None:
            self.on_zero()
