# SPDX-License-Identifier: GPL-2.0-or-later
"""The function tracer. kernel/trace/trace_functions.c, kernel/trace/trace.c.

A traced function calls ``function_trace_call`` like any ftrace handler. Python replaces that function, and
stores entries in a ring buffer.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import NamedTuple

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.glob import glob
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.trace.ftrace import Ftrace

RING_BYTES = 1408 << 10
"""Size of the ring buffer in bytes (``buffer_size_kb``). Older entries are overwritten."""
_ENTRY = struct.Struct("<QQQIBBxx")
_ENTRIES = RING_BYTES // _ENTRY.size
_MAX_COMMS = 4096
_UNKNOWN_COMM = "<...>"
_IRQS_OFF, _NEED_RESCHED = 1, 2
_DEPTH = 15

_HEADER = """\
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
NOP, FUNCTION = "nop", "function"


class _Entry(NamedTuple):
    time: int
    ip: int
    parent_ip: int
    pid: int
    flags: int
    depth: int


class Tracer:
    """The function tracer of one kernel, and its ring buffer."""

    def __init__(self, base: Base, ftrace: Ftrace) -> None:
        computer = base.computer
        self._symbols = computer.symbols
        self._sched = base.sched
        self._clock = base.clock
        self._ftrace = ftrace
        self._ops = computer.space.view("struct ftrace_ops", computer.symbol("global_ops"))
        self._ops.func = computer.symbol("function_trace_call")
        self._ring = bytearray()
        self._next = self._cleared = 0  # numbers of entries; modulo _ENTRIES, indexes in the ring
        self._comms: dict[int, str] = {}
        self._last: Task | None = None
        self.on = True
        """``tracing_on``"""
        self.current = NOP
        """``current_tracer``"""
        base.traps.on_oops.append(self.stop)

    # -- entries ----------------------------------------------------------------------------------

    @service("function_trace_call")
    def function_trace_call(self, ip: Ptr, parent_ip: Ptr, _ops: Ptr, _fregs: Ptr) -> None:
        if not self.on or self.current == NOP:
            return
        sched = self._sched
        task = sched.current
        if task is not self._last:
            self._save_comm(task)
        if not self._ring:
            self._ring = bytearray(RING_BYTES)
        flags = (not sched.interrupts_on) * _IRQS_OFF | sched.need_resched * _NEED_RESCHED
        depth = min(sched.preempt_count, _DEPTH)
        at = self._next % _ENTRIES * _ENTRY.size
        _ENTRY.pack_into(self._ring, at, self._clock.now(), ip, parent_ip, task.pid, flags, depth)
        self._next += 1

    def _save_comm(self, task: Task) -> None:
        """``trace_save_cmdline``: store the name of a task for entries that are printed after its end."""
        self._last = task
        self._comms.pop(task.pid, None)
        self._comms[task.pid] = task.comm
        if len(self._comms) > _MAX_COMMS:
            del self._comms[next(iter(self._comms))]

    def _line(self, number: int) -> str:
        """Return the line of an entry, as ``trace_print_context`` and ``trace_fn_trace`` print it."""
        entry = _Entry(*_ENTRY.unpack_from(self._ring, number % _ENTRIES * _ENTRY.size))
        comm = self._comms.get(entry.pid, _UNKNOWN_COMM)
        irqs = "d" if entry.flags & _IRQS_OFF else "."
        resched = "N" if entry.flags & _NEED_RESCHED else "."
        depth = f"{entry.depth:x}" if entry.depth else "."
        seconds, rest = divmod(entry.time // 1000, 1_000_000)
        name = self._symbols.sprint_symbol_no_offset
        return (
            f"{comm:>16}-{entry.pid:<7} [000] {irqs}{resched}.{depth}. {seconds:5}.{rest:06}: "
            f"{name(entry.ip)} <-{name(entry.parent_ip)}\n"
        )

    def text(self) -> str:
        """Return the content of ``trace``: a header and all entries."""
        written = self._next - self._cleared
        count = min(written, _ENTRIES)
        lines = (self._line(number) for number in range(self._next - count, self._next))
        return (
            f"# tracer: {self.current}\n#\n# entries-in-buffer/entries-written: {count}/{written}   #P:1\n#\n"
            f"{_HEADER}{''.join(lines)}"
        )

    def clear(self) -> None:
        """``tracing_reset_online_cpus``: remove all entries."""
        self._cleared = self._next

    def stop(self) -> None:
        """``tracing_off``: stop recording, so that an oops does not overwrite the entries before it."""
        self.on = False

    # -- the tracer -------------------------------------------------------------------------------

    async def set_current(self, name: str) -> None:
        """``tracing_set_tracer``. Raises OSError(EINVAL) if there is no such tracer. A checkpoint."""
        if name not in (NOP, FUNCTION):
            raise OSError(errno.EINVAL, f"no tracer {name}")
        if name == self.current:
            return
        self.current = name
        self.clear()
        if name == FUNCTION:
            await self._ftrace.register(self._ops.address_)
        else:
            await self._ftrace.unregister(self._ops.address_)

    # -- filters ----------------------------------------------------------------------------------

    def functions(self, *, notrace: bool) -> set[int]:
        """Return the existing sites in the filter, or in the notrace filter."""
        chosen = self._ftrace.hash(self._ops.address_, notrace=notrace)
        return chosen & self._ftrace.addresses

    def names(self, *, notrace: bool) -> Iterator[str]:
        """Return the names of the functions in a filter, sorted by address."""
        chosen = self.functions(notrace=notrace)
        return (self._ftrace.name(site) for site in self._ftrace.sites() if site.ip in chosen)

    async def set_functions(self, sites: set[int], *, notrace: bool) -> None:
        """Replace a filter. A checkpoint if the tracer is active."""
        await self._ftrace.set_hash(self._ops.address_, sites, notrace=notrace)

    def apply(self, word: str, sites: set[int]) -> set[int]:
        """``ftrace_process_regex``: return the filter ``sites`` changed by a word that was written to
        ``set_ftrace_filter``: ``name``, ``glob*``, ``!name``, ``glob*:mod:module``. Raises OSError(EINVAL)
        if no function matches."""
        pattern, colon, command = word.partition(":")
        module = command.removeprefix("mod:") if colon else None
        removes, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        if colon and not command.startswith("mod:"):
            raise OSError(errno.EINVAL, f"no command {command}")
        matches = glob(pattern or "*").fullmatch
        matching = {
            site.ip
            for site in self._ftrace.sites()
            if (function := self._ftrace.function(site))
            and (module is None or function[1] == module)
            and matches(function[0])
        }
        if not matching:
            raise OSError(errno.EINVAL, f"no function matches {word}")
        return sites - matching if removes else sites | matching
