# SPDX-License-Identifier: GPL-2.0-or-later
"""Trampolines: the code between a call site and the function of one ftrace_ops. arch/x86/kernel/ftrace.c.

A trampoline is a copy of the image's own ``ftrace_caller`` or ``ftrace_regs_caller`` that calls ``ops->func``
directly.
"""

from __future__ import annotations

import errno
import struct

import trio

from klpfs.machine.instructions import CALL_SIZE, call_to
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import THREAD_SIZE
from klpfs.machine.structs import Struct

_RET = b"\xc3"
_OP_REFERENCE = 7  # mov function_trace_op(%rip), %rdx


class Trampolines:
    """Creates and frees the trampolines of one kernel."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self._sched = base.sched
        self._text = base.text
        self._stack = base.stack

    def create(self, ops: Struct, *, with_regs: bool) -> int:
        """``create_trampoline``: copy the image's ``ftrace_caller`` or ``ftrace_regs_caller``, and change the
        copy so that it loads ``ops`` and calls ``ops->func``. Returns its address. Raises OSError(ENOMEM)."""
        computer, symbol = self._computer, self._computer.symbol
        caller = "ftrace_regs_caller" if with_regs else "ftrace_caller"
        call = "ftrace_regs_call" if with_regs else "ftrace_call"
        start, end = symbol(caller), symbol(f"{caller}_end")
        code = bytearray(computer.memory.read(start, end - start) + _RET)
        size = len(code) + 8
        try:
            trampoline = computer.map_pages(
                computer.modules_area, size, writable=False, executable=True, guard=False
            )
        except MemoryError:
            raise OSError(errno.ENOMEM, "no memory for a trampoline") from None
        op_at = symbol(f"{caller}_op_ptr") - start
        code[op_at + 3 : op_at + _OP_REFERENCE] = struct.pack(
            "<i", len(code) - (op_at + _OP_REFERENCE)
        )
        call_at = symbol(call) - start
        code[call_at : call_at + CALL_SIZE] = call_to(trampoline + call_at, int(ops.func))
        jump = computer.symbols.lookup("ftrace_regs_caller_jmp")
        if jump is not None and with_regs:
            code[jump - start : jump - start + 2] = b"\x66\x90"
        self._text.poke_early(trampoline, bytes(code) + struct.pack("<Q", ops.address_))
        ops.trampoline_size = size
        self._stack.add_copy(trampoline, size, start)
        return trampoline

    async def free(self, ops: Struct) -> None:
        """``arch_ftrace_trampoline_free``, after a wait until no task is in the trampoline
        (``synchronize_rcu_tasks``)."""
        start, size = int(ops.trampoline), int(ops.trampoline_size)
        await self._sched.synchronize_rcu()
        while any(self._is_inside(task, start, start + size) for task in self._sched):
            await trio.lowlevel.checkpoint()
        ops.trampoline = 0
        self._stack.remove_copy(start)
        computer = self._computer
        computer.unmap_pages(computer.modules_area, start, size, guard=False)

    def _is_inside(self, task: Task, start: int, end: int) -> bool:
        """Return whether ``task`` was stopped between two instructions, and is in ``[start, end)`` or may
        return there."""
        if not task.preempted:
            return False
        registers = task.registers()
        if start <= registers["rip"] < end:
            return True
        rsp = max(registers["rsp"], task.stack)
        used = self._computer.memory.read(rsp, task.stack + THREAD_SIZE - rsp)
        words = struct.unpack(f"<{len(used) // 8}Q", used[: len(used) & -8])
        return any(start <= word < end for word in words)
