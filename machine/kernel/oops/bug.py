# SPDX-License-Identifier: GPL-2.0-or-later
"""WARN and BUG: the tables of ud2 instructions, and their reports. lib/bug.c, kernel/panic.c."""

from __future__ import annotations

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop, StopReason
from klpfs.machine.kernel.oops.dumpstack import DumpStack
from klpfs.machine.kernel.oops.taint import Taint, Tainted
from klpfs.machine.kernel.printk.printk import LOGLEVEL_CRIT, LOGLEVEL_WARNING, Printk
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.trapnr import INVALID_OPCODE
from klpfs.machine.memory import PageFault

CUT_HERE = "------------[ cut here ]------------"
END_TRACE = "---[ end trace 0000000000000000 ]---"

_UD2 = b"\x0f\x0b"
_BUGFLAG_WARNING, _BUGFLAG_ONCE, _BUGFLAG_DONE, _BUGFLAG_NO_CUT_HERE = 1, 2, 4, 8
_BUGFLAG_TAINT_SHIFT = 8
_BUG_ENTRY, _BUG_FLAGS_AT = 12, 10
"""Size of a bug_entry (bug_addr_disp, file_disp: s32; line, flags: u16), and the offset of its flags."""
_FILE_NAME_MAX = 256


class Bugs:
    """The bug tables of one kernel, and the reports of WARN and BUG."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        *,
        printk: Printk,
        tainted: Tainted,
        dumpstack: DumpStack,
    ) -> None:
        self._computer = computer
        self._cpu = computer.cpu
        self._sched = sched
        self._printk = printk
        self._tainted = tainted
        self._dumpstack = dumpstack
        self.tables: list[tuple[int, int]] = []
        """Start and end of each ``__bug_table``, of the kernel and of modules."""
        self.warn_count = 0
        """Number of warnings since boot, /sys/kernel/warn_count."""
        first = computer.symbols.lookup("__start___bug_table")
        last = computer.symbols.lookup("__stop___bug_table")
        if first and last:
            self.tables.append((first, last))

    def _find_bug(self, address: int) -> tuple[int, str, int, int] | None:
        """``find_bug``: look up the ud2 at ``address`` in the bug tables. Returns the address of the
        entry's flags, the file, the line and the flags; None if there is no entry."""
        space = self._computer.space
        flags_at = _BUG_FLAGS_AT
        for start, end in self.tables:
            for entry in range(start, end - _BUG_ENTRY + 1, _BUG_ENTRY):
                if (entry + space.read_s32(entry)) & (1 << 64) - 1 == address:
                    file_at = (entry + 4 + space.read_s32(entry + 4)) & (1 << 64) - 1
                    try:
                        file = space.read_string(file_at, _FILE_NAME_MAX)
                    except PageFault:  # a corrupted table
                        file = "(efault)"
                    line = int.from_bytes(self._computer.memory.read(entry + 8, 2), "little")
                    flags = int.from_bytes(
                        self._computer.memory.read(entry + flags_at, 2), "little"
                    )
                    return entry + flags_at, file, line, flags
        return None

    def report_bug(self, task: Task) -> bool:
        """``report_bug``: report a WARN or BUG. Returns True for a WARN, after which the task continues
        behind the ud2."""
        rip = self._cpu["rip"]
        try:
            if self._computer.memory.read(rip, 2) != _UD2:
                return False
        except PageFault:
            return False
        bug = self._find_bug(rip)
        if bug is None:
            return False
        flags_address, file, line, flags = bug
        dump = self._dumpstack
        if not flags & _BUGFLAG_WARNING:
            self.print_bug(file, line)
            return False
        once = flags & _BUGFLAG_ONCE
        if not (once and flags & _BUGFLAG_DONE):
            if once:
                self._computer.memory.write(
                    flags_address, (flags | _BUGFLAG_DONE).to_bytes(2, "little")
                )
            if not flags & _BUGFLAG_NO_CUT_HERE:
                self._printk(LOGLEVEL_WARNING, CUT_HERE)
            where = self._computer.symbols.sprint_symbol(rip)
            self._printk(
                LOGLEVEL_WARNING, f"WARNING: CPU: 0 PID: {task.pid} at {file}:{line} {where}"
            )
            dump.print_modules()
            dump.dump_stack_print_info(task)
            dump.show_regs(Stop(StopReason.EXCEPTION, vector=INVALID_OPCODE))
            dump.show_trace(task)
            self._end_warning(flags >> _BUGFLAG_TAINT_SHIFT)
        self._cpu["rip"] = rip + len(_UD2)
        return True

    def print_bug(self, file: str, line: int) -> None:
        """Log the head of the report of a ``BUG()``."""
        self._printk(LOGLEVEL_WARNING, CUT_HERE)
        self._printk(LOGLEVEL_CRIT, f"kernel BUG at {file}:{line}!")

    def warn(self, file: str, line: int, function: str, message: str = "") -> None:
        """Report a ``WARN_ON()`` of a kernel service in Python, or a ``WARN()`` if there is a message."""
        task, dump = self._sched.current, self._dumpstack
        self._printk(LOGLEVEL_WARNING, CUT_HERE)
        if message:
            self._printk(LOGLEVEL_WARNING, message)
        self._printk(
            LOGLEVEL_WARNING, f"WARNING: CPU: 0 PID: {task.pid} at {file}:{line} {function}"
        )
        dump.print_modules()
        dump.dump_stack()
        self._end_warning(Taint.WARN)

    def _end_warning(self, taint: int) -> None:
        """The end of ``__warn``: count the warning, and taint the kernel after the report."""
        self.warn_count += 1
        self._printk(LOGLEVEL_WARNING, END_TRACE)
        self._tainted.add(taint)

    def clear_once(self) -> None:
        """``clear_warn_once_set``: let each WARN_ONCE() and the like report once more.

        As in Linux, this includes the bug tables of modules, but not their ``.data.once``.
        """
        memory, symbols = self._computer.memory, self._computer.symbols
        for start, end in self.tables:
            for entry in range(start, end - _BUG_ENTRY + 1, _BUG_ENTRY):
                at = entry + _BUG_FLAGS_AT
                flags = int.from_bytes(memory.read(at, 2), "little")
                memory.write(at, (flags & ~_BUGFLAG_DONE).to_bytes(2, "little"))
        first, last = symbols.lookup("__start_once"), symbols.lookup("__end_once")
        if first and last:
            memory.write(first, bytes(last - first))
