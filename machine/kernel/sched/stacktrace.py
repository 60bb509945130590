# SPDX-License-Identifier: GPL-2.0-or-later
"""Stack traces of tasks, reliable or not. kernel/stacktrace.c, arch/x86/kernel/stacktrace.c.

The unwinder depends on how the kernel was compiled. It follows frame pointers
(arch/x86/kernel/unwind_frame.c), or reads ORC tables, which give the position of the caller's frame for each
address (arch/x86/kernel/unwind_orc.c, `klpfs.machine.image.orc`).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from klpfs.machine.computer import Computer
from klpfs.machine.image.orc import Format, Frame, Kind, OrcEntry, OrcTable, Register, Trace, unwind
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.task import THREAD_SIZE
from klpfs.machine.memory import PageFault

MAX_STACK_ENTRIES = 100
"""Longest stack trace that is checked, kernel/livepatch/transition.c."""

_FROM_SERVICE = OrcEntry(Kind.CALL, Register.SP, 16, Register.PREV_SP, -16)
"""Entry of a service that has called guest code: `Task.call` saves the caller's RBP next to the return
address."""
_END = OrcEntry(Kind.END_OF_STACK)


class _Copy(NamedTuple):
    """Generated code: ``[start, end)`` is a copy of the code at ``original``."""

    start: int
    end: int
    original: int


class _Unwinder(Protocol):
    """Walks a stack. An address at the trap of a service belongs to the function that the service
    replaces."""

    trusts_preempted: bool
    """True if traces of tasks that were stopped between two instructions are reliable."""

    def trace(self, task: Task) -> Trace: ...


class StackTrace:
    """Walks the stacks of the tasks of one machine."""

    def __init__(self, computer: Computer, sched: Scheduler) -> None:
        self._computer = computer
        self._space = computer.space
        self._memory = computer.memory
        self.hooked: Callable[[int], int] | None = None
        """Returns the original return address for a place on the stack where it was replaced, or 0
        (``ftrace_graph_ret_addr``). Set while calls are being counted."""
        self._copies: list[_Copy] = []
        self._orc = _Orc(self, computer, sched) if computer.image.unwinder == "orc" else None
        self._unwinder: _Unwinder = self._orc or _FramePointers(computer)

    # -- generated code and modules ---------------------------------------------------------------

    def add_copy(self, start: int, size: int, original: int) -> None:
        """Register generated code of ``size`` bytes at ``start``, a copy of the function at ``original``."""
        self._copies.append(_Copy(start, start + size, original))

    def remove_copy(self, start: int) -> None:
        """Forget the generated code at ``start``."""
        self._copies = [copy for copy in self._copies if copy.start != start]

    def original(self, address: int) -> int:
        """Return the address that ``address`` in generated code is a copy of; else ``address``."""
        for copy in self._copies:
            if copy.start <= address < copy.end:
                return copy.original + address - copy.start
        return address

    def add_module(self, name: str, ips: range, entries: range) -> None:
        """``unwind_module_init``: add the tables of a module. ``ips`` and ``entries`` are the ranges of
        ``.orc_unwind_ip`` and ``.orc_unwind``. Raises ValueError if their sizes do not match."""
        if self._orc is not None and ips and entries:
            self._orc.add_table(name, ips, entries)

    def remove_module(self, name: str) -> None:
        """Remove the tables of a module."""
        if self._orc is not None:
            self._orc.tables.pop(name, None)

    def is_text(self, address: int) -> bool:
        """``__kernel_text_address``: return whether an address is in the code of the kernel or of a
        module, or in a copy of it."""
        found = self._computer.symbols.lookup_address(self.original(address))
        return found is not None and found[0].kind in "tTwW"

    # -- stacks -----------------------------------------------------------------------------------

    def reliable(self, task: Task) -> list[int]:
        """``stack_trace_save_tsk_reliable``: return the addresses on the stack of ``task``, innermost first.

        Raises OSError(EINVAL) if the trace is not reliable.
        """
        if task.preempted and not self._unwinder.trusts_preempted:
            raise OSError(errno.EINVAL, "task was stopped between two instructions")
        trace = self._trace(task)
        if len(trace.frames) > MAX_STACK_ENTRIES or not trace.reliable:
            raise OSError(errno.EINVAL, "the chain of frames is broken")
        return [frame.ip for frame in trace.frames]

    def possible(self, task: Task) -> list[int]:
        """Return RIP and every word in use on the stack of ``task``. All addresses on the stack are among
        them, wherever the task was stopped."""
        if not task.depth:
            return []
        registers = task.registers()
        rsp = max(registers["rsp"], task.stack) & -8
        used = self._memory.read(rsp, task.stack + THREAD_SIZE - rsp)
        return [registers["rip"], *struct.unpack(f"<{len(used) // 8}Q", used)]

    def walk(self, task: Task) -> Iterator[int]:
        """``stack_trace_save_tsk``: return the addresses on the stack of a task, innermost first, as far as
        the unwinder finds them."""
        return (frame.ip for frame in self._trace(task).frames)

    def return_addresses(self, task: Task) -> set[int]:
        """Return the places on the stack of a task where the unwinder found return addresses."""
        return {frame.place for frame in self._trace(task).frames if frame.place is not None}

    def _trace(self, task: Task) -> Trace:
        if not task.depth:
            return Trace([], True)
        trace = self._unwinder.trace(task)
        if self.hooked is None:
            return trace
        return Trace([self._unhooked(frame, self.hooked) for frame in trace.frames], trace.reliable)

    @staticmethod
    def _unhooked(frame: Frame, hooked: Callable[[int], int]) -> Frame:
        real = hooked(frame.place) if frame.place is not None else 0
        return frame._replace(ip=real) if real else frame

    def words(self, task: Task) -> Iterator[tuple[int, int]]:
        """Yield address and content of each word in use on the stack of the running task."""
        rsp = task.registers()["rsp"] & -8
        for at in range(max(rsp, task.stack), task.stack + THREAD_SIZE, 8):
            yield at, self._space.read_u64(at)


class _FramePointers:
    """Unwinder for frame pointers.

    Every function of the embedded kernel and of its modules keeps a frame pointer, so the chain of frames
    is complete for a task that stopped at a call. A task that was stopped between two instructions may not
    have executed ``push %rbp`` yet.
    """

    trusts_preempted = False

    def __init__(self, computer: Computer) -> None:
        self._space = computer.space
        self._cpu = computer.cpu

    def trace(self, task: Task) -> Trace:
        registers = task.registers()
        rip, rsp, frame = registers["rip"], registers["rsp"], registers["rbp"]
        frames = [Frame(rip, rsp, frame)]
        try:
            if self._cpu.in_trap(rip):  # at the entry of a function, before it sets up its frame
                frames.append(Frame(self._space.read_u64(rsp), rsp, frame, place=rsp))
            below, top = rsp, task.stack + THREAD_SIZE
            while frame:
                if len(frames) > MAX_STACK_ENTRIES or frame % 8 or not below <= frame <= top - 16:
                    return Trace(frames, False)
                place = frame + 8
                caller = self._space.read_u64(frame)
                frames.append(Frame(self._space.read_u64(place), place, caller, place=place))
                frame, below = caller, frame + 16
        except PageFault:
            return Trace(frames, False)
        return Trace(frames, True)


class _Orc:
    """Unwinder for the ORC tables of a distribution's kernel and its modules."""

    trusts_preempted = True

    def __init__(self, stack: StackTrace, computer: Computer, sched: Scheduler) -> None:
        self._stack = stack
        self._computer = computer
        self._sched = sched
        self._format = Format(computer.space.types)
        symbol = computer.symbol
        self._kernel = range(symbol("_stext"), symbol("_end"))
        self.tables: dict[str, OrcTable] = {}
        """Tables by module name; the kernel's is the empty string."""
        self.add_table(
            "",
            range(symbol("__start_orc_unwind_ip"), symbol("__stop_orc_unwind_ip")),
            range(symbol("__start_orc_unwind"), symbol("__stop_orc_unwind")),
        )

    def add_table(self, name: str, ips: range, entries: range) -> None:
        read = self._computer.memory.read
        size = len(ips) // 4 * self._format.size  # the section may be padded
        table = OrcTable(
            self._format, read(ips.start, len(ips)), ips.start, read(entries.start, size)
        )
        self.tables[name] = table.sorted() if name else table

    def _find(self, address: int) -> OrcEntry | None:
        if address + 1 == self._sched.nested_return:  # unwind() looks up return addresses minus 1
            return _FROM_SERVICE
        if address + 1 == self._sched.guest_return:
            return _END
        address = self._stack.original(address)
        if address in self._kernel:
            return self.tables[""].find(address)
        found = self._computer.symbols.lookup_address(address)
        table = self.tables.get(found.module or "") if found is not None else None
        return table.find(address) if table is not None else None

    def _is_text(self, address: int) -> bool:
        return self._sched.is_return(address) or self._stack.is_text(address)

    def trace(self, task: Task) -> Trace:
        registers = task.registers()
        ip = registers["rip"]
        if self._computer.cpu.in_trap(ip):
            found = self._computer.symbols.lookup_address(ip)
            if found is not None:
                ip -= found.offset  # the frame is still that of the function's first instruction
        start = Frame(ip, registers["rsp"], registers["rbp"], signal=True)
        stack = range(task.stack, task.stack + THREAD_SIZE)
        trace = unwind(self._find, self._computer.space.read_u64, self._is_text, start, stack)
        frames = [start._replace(ip=registers["rip"]), *trace.frames[1:]]
        return Trace(
            [frame for frame in frames if not self._sched.is_return(frame.ip)], trace.reliable
        )
