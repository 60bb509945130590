# SPDX-License-Identifier: GPL-2.0-or-later
"""What is on a task's stack, and whether that is certain: ``stack_trace_save_tsk_reliable``.

Frame pointers, as arch/x86/kernel/unwind_frame.c: every function of the embedded kernel and of its modules
keeps them, so the chain is complete wherever a task stopped at a call. A task that was stopped between
two calls may stand in front of a ``push %rbp``; its stack is not reliable.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from machine.computer import Computer
from machine.kernel.sched import THREAD_SIZE, Task
from machine.memory import PageFault

MAX_STACK_ENTRIES = 100
"""kernel/livepatch/transition.c."""


class StackTrace:
    """Walks the stacks of the tasks of one machine."""

    def __init__(self, computer: Computer) -> None:
        self._space = computer.space
        self._symbols = computer.symbols

    def reliable(self, task: Task) -> list[int]:
        """The addresses on the stack, innermost first, all of them for certain.

        Raises OSError(EINVAL) for a task whose stack cannot be trusted now.
        """
        if task.preempted:
            raise OSError(errno.EINVAL, "stopped in the middle of a function")
        entries = list(self.walk(task))
        if len(entries) > MAX_STACK_ENTRIES or (entries and entries[-1] == 0):
            raise OSError(errno.EINVAL, "the chain of frames is broken")
        return entries

    def walk(self, task: Task) -> Iterator[int]:
        """The addresses on the stack of a task that waits in a service, innermost first; ends with a 0
        where the chain is broken."""
        if not task.depth:
            return
        registers = task.registers()
        yield registers["rip"]
        try:
            yield self._space.read_u64(registers["rsp"])  # into the caller of the service
        except PageFault:
            yield 0
            return
        for at in self._frames(task, registers):
            yield self._space.read_u64(at) if at else 0

    def _frames(self, task: Task, registers: dict[str, int]) -> Iterator[int]:
        """Where the return addresses of the chain of frames are; 0 where it is broken."""
        frame, below = registers["rbp"], registers["rsp"]
        top = task.stack + THREAD_SIZE
        for _ in range(MAX_STACK_ENTRIES):
            if not frame:
                return
            if not below <= frame <= top - 16 or frame % 8:
                break
            yield frame + 8
            frame, below = self._space.read_u64(frame), frame + 16
        yield 0

    def return_addresses(self, task: Task) -> set[int]:
        """The places on the stack of the running task that surely hold return addresses."""
        return set(self._frames(task, task.registers()))

    def words(self, task: Task) -> Iterator[tuple[int, int]]:
        """Address and content of each word in use on the stack of the running task."""
        rsp = task.registers()["rsp"] & -8
        for at in range(max(rsp, task.stack), task.stack + THREAD_SIZE, 8):
            yield at, self._space.read_u64(at)

    def is_text(self, address: int) -> bool:
        """Whether an address is in the code of the kernel or of a module."""
        found = self._symbols.lookup_address(address)
        return found is not None and found[0].kind in "tTwW"
