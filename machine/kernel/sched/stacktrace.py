# SPDX-License-Identifier: GPL-2.0-or-later
"""What is on a task's stack, and whether that is certain: ``stack_trace_save_tsk_reliable``.

How the stack is walked depends on how the kernel was compiled: along frame pointers
(arch/x86/kernel/unwind_frame.c), or by tables that say for each address where the caller's frame is
(arch/x86/kernel/unwind_orc.c, `klpfs.machine.image.orc`).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from klpfs.machine.computer import Computer
from klpfs.machine.image.orc import Format, Frame, Kind, OrcEntry, OrcTable, Register, Trace, unwind
from klpfs.machine.kernel.sched.core import THREAD_SIZE, Scheduler, Task
from klpfs.machine.memory import PageFault

MAX_STACK_ENTRIES = 100
"""kernel/livepatch/transition.c."""

_FROM_SERVICE = OrcEntry(Kind.CALL, Register.SP, 16, Register.PREV_SP, -16)
"""Of a service that has called the guest: `Task.call` put its caller's RBP below the return address."""
_END = OrcEntry(Kind.END_OF_STACK)


class _Copy(NamedTuple):
    """Generated code: ``[start, end)`` is a copy of what is at ``original``."""

    start: int
    end: int
    original: int


class _Unwinder(Protocol):
    """Walks a stack; an address at a trap is that of the function which a service stands in for."""

    trusts_preempted: bool
    """Whether the stack of a task that was stopped between two instructions can be trusted."""

    def trace(self, task: Task) -> Trace: ...


class StackTrace:
    """Walks the stacks of the tasks of one machine."""

    def __init__(self, computer: Computer, sched: Scheduler) -> None:
        self._computer = computer
        self._space = computer.space
        self._memory = computer.memory
        self.hooked: Callable[[int], int] | None = None
        """Where a return address really is of a place on the stack that holds something else, or 0
        (``ftrace_graph_ret_addr``); set while calls are being counted."""
        self._copies: list[_Copy] = []
        self._orc = _Orc(self, computer, sched) if computer.image.unwinder == "orc" else None
        self._unwinder: _Unwinder = self._orc or _FramePointers(computer)

    # -- code that comes and goes -----------------------------------------------------------------

    def add_copy(self, start: int, size: int, original: int) -> None:
        """Generated code of ``size`` bytes, a copy of the function at ``original``."""
        self._copies.append(_Copy(start, start + size, original))

    def remove_copy(self, start: int) -> None:
        """The generated code at ``start`` has gone."""
        self._copies = [copy for copy in self._copies if copy.start != start]

    def original(self, address: int) -> int:
        """The address of which ``address`` is a copy, or itself."""
        for copy in self._copies:
            if copy.start <= address < copy.end:
                return copy.original + address - copy.start
        return address

    def add_module(self, name: str, ips: range, entries: range) -> None:
        """Tables of a module: where ``.orc_unwind_ip`` and ``.orc_unwind`` are. Raises ValueError if
        they do not belong together."""
        if self._orc is not None and ips and entries:
            self._orc.add_table(name, ips, entries)

    def remove_module(self, name: str) -> None:
        """The module has gone."""
        if self._orc is not None:
            self._orc.tables.pop(name, None)

    def is_text(self, address: int) -> bool:
        """Whether an address is in the code of the kernel or of a module, or in a copy of it."""
        found = self._computer.symbols.lookup_address(self.original(address))
        return found is not None and found[0].kind in "tTwW"

    # -- stacks -----------------------------------------------------------------------------------

    def reliable(self, task: Task) -> list[int]:
        """The addresses on the stack, innermost first, all of them for certain.

        Raises OSError(EINVAL) for a task whose stack cannot be trusted now.
        """
        if task.preempted and not self._unwinder.trusts_preempted:
            raise OSError(errno.EINVAL, "stopped in the middle of a function")
        trace = self._trace(task)
        if len(trace.frames) > MAX_STACK_ENTRIES or not trace.reliable:
            raise OSError(errno.EINVAL, "the chain of frames is broken")
        return [frame.ip for frame in trace.frames]

    def possible(self, task: Task) -> list[int]:
        """Whatever may be an address on the stack of a task: RIP and every word in use. All of the
        addresses are among them, wherever the task was stopped."""
        if not task.depth:
            return []
        registers = task.registers()
        rsp = max(registers["rsp"], task.stack) & -8
        used = self._memory.read(rsp, task.stack + THREAD_SIZE - rsp)
        return [registers["rip"], *struct.unpack(f"<{len(used) // 8}Q", used)]

    def walk(self, task: Task) -> Iterator[int]:
        """The addresses on the stack of a task, innermost first, as far as can be told."""
        return (frame.ip for frame in self._trace(task).frames)

    def return_addresses(self, task: Task) -> set[int]:
        """The places on the stack of a task that surely hold return addresses."""
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
        """Address and content of each word in use on the stack of the running task."""
        rsp = task.registers()["rsp"] & -8
        for at in range(max(rsp, task.stack), task.stack + THREAD_SIZE, 8):
            yield at, self._space.read_u64(at)


class _FramePointers:
    """Every function of the embedded kernel and of its modules keeps a frame pointer, so the chain is
    complete wherever a task stopped at a call. A task that was stopped between two calls may stand in
    front of a ``push %rbp``."""

    trusts_preempted = False

    def __init__(self, computer: Computer) -> None:
        self._space = computer.space
        self._cpu = computer.cpu

    def trace(self, task: Task) -> Trace:
        registers = task.registers()
        rip, rsp, frame = registers["rip"], registers["rsp"], registers["rbp"]
        frames = [Frame(rip, rsp, frame)]
        try:
            if self._cpu.in_trap(rip):  # its frame is not there yet
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
    """A distribution's kernel has tables, and so have its modules."""

    trusts_preempted = True

    def __init__(self, stack: StackTrace, computer: Computer, sched: Scheduler) -> None:
        self._stack = stack
        self._computer = computer
        self._sched = sched
        self._format = Format(computer.space.types)
        symbol = computer.symbol
        self._kernel = range(symbol("_stext"), symbol("_end"))
        self.tables: dict[str, OrcTable] = {}
        """By the name of the module; the kernel's has none."""
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
        if address + 1 == self._sched.nested_return:  # looked for behind the call
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
                ip -= found.offset  # where the frame is as it is now
        start = Frame(ip, registers["rsp"], registers["rbp"], signal=True)
        stack = range(task.stack, task.stack + THREAD_SIZE)
        trace = unwind(self._find, self._computer.space.read_u64, self._is_text, start, stack)
        frames = [start._replace(ip=registers["rip"]), *trace.frames[1:]]
        return Trace(
            [frame for frame in frames if not self._sched.is_return(frame.ip)], trace.reliable
        )
