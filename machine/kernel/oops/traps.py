# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions of guest code: breakpoints, WARN, BUG and Oops.

arch/x86/kernel/traps.c, arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c, lib/bug.c.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from signal import SIGKILL, SIGSEGV
from typing import NoReturn

from klpfs.machine import disasm
from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop, StopReason
from klpfs.machine.kernel.clock import HZ
from klpfs.machine.kernel.oops.extable import ExceptionTables
from klpfs.machine.kernel.oops.taint import Taint, Tainted
from klpfs.machine.kernel.printk.printk import (
    LOGLEVEL_ALERT,
    LOGLEVEL_CRIT,
    LOGLEVEL_EMERG,
    LOGLEVEL_ERR,
    LOGLEVEL_INFO,
    LOGLEVEL_WARNING,
    Printk,
)
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.sched.task import THREAD_SIZE, TaskExit
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.trace.text import Text
from klpfs.machine.kernel.trapnr import (
    BREAKPOINT,
    FIRST_EXTERNAL_VECTOR,
    GENERAL_PROTECTION,
    INVALID_OPCODE,
    PAGE_FAULT,
)
from klpfs.machine.kernel.vsprintf import text as as_text
from klpfs.machine.kernel.vsprintf import vscnprintf_here
from klpfs.machine.memory import NX, PAGE_SIZE, PRESENT, WRITE, PageFault, is_canonical

UD2 = b"\x0f\x0b"
BUGFLAG_WARNING, BUGFLAG_ONCE, BUGFLAG_DONE, BUGFLAG_NO_CUT_HERE = 1, 2, 4, 8
CUT_HERE = "------------[ cut here ]------------"
END_TRACE = "---[ end trace 0000000000000000 ]---"

_GPF = "general protection fault"
_TITLES = {
    0: "divide error", 1: "debug", BREAKPOINT: "int3", 4: "overflow", 5: "bounds",
    INVALID_OPCODE: "invalid opcode", 7: "device not available", 8: "double fault",
    10: "invalid TSS", 11: "segment not present", 12: "stack segment", GENERAL_PROTECTION: _GPF,
    16: "x87 FPU error", 17: "alignment check", 19: "simd exception",
}  # fmt: skip
_PF_PROT, _PF_WRITE, _PF_INSTR = 1, 2, 16
_GP_IDT = 2  # bit of the error code: the selector is an index into the IDT
_INSTRUCTION_MAX = 15  # bytes
_FILE_NAME_MAX = 256
_TRACE_MAX = 128
"""Most lines of a call trace. A stack that has overflowed is full of return addresses."""
_CODE_BEFORE, _CODE_BYTES = 42, 64


def _built_with(computer: Computer) -> str:
    """Return the kernel configuration as ``__die_header`` prints it."""
    words = computer.image.vermagic.split()
    preempt = " PREEMPT_RT" if "preempt_rt" in words else " PREEMPT"
    smp = " SMP" if "SMP" in words else ""
    has_pti = computer.symbols.lookup("pti_init") is not None
    return preempt + smp + (" NOPTI" if has_pti else "")


class Traps:
    """Handles the exceptions of all tasks of one machine."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        *,
        printk: Printk,
        tainted: Tainted,
        text: Text,
        stack: StackTrace,
    ) -> None:
        self._computer = computer
        self._cpu = computer.cpu
        self._sched = sched
        self._printk = printk
        self._text = text
        self._stack = stack
        self._tainted = tainted
        self._die_counter = 0
        self._built_with = _built_with(computer)
        self.on_oops: list[Callable[[], None]] = []
        """Called before an Oops is reported (``oops_enter``)."""
        self.on_print_modules: list[Callable[[], str]] = []
        """Each returns a line about the modules for a report (``print_modules``)."""
        self.bug_tables: list[tuple[int, int]] = []
        """Start and end of each ``__bug_table``, of the kernel and of modules."""
        self.exception_tables = ExceptionTables(computer)
        sched.on_exception.append(self.handle)
        sched.on_schedule_bug.append(self._schedule_bug)
        sched.on_service_bug.append(self._service_bug)
        sched.on_signal_ignored.append(self._report_ignored_signal)
        sched.on_might_sleep.append(self._might_resched)
        self._last_might_resched: int | None = None
        first = computer.symbols.lookup("__start___bug_table")
        last = computer.symbols.lookup("__stop___bug_table")
        if first and last:
            self.bug_tables.append((first, last))

    async def handle(self, task: Task, stop: Stop) -> None:
        """Handle an exception of ``task``. Returns if it was a breakpoint of text_poke(), a WARN, or has a
        fixup. Else reports an Oops and raises TaskExit."""
        if stop.vector == BREAKPOINT and self._text.handle_int3(task, stop):
            return
        if stop.vector == INVALID_OPCODE and self._report_bug(task):
            return
        if self.exception_tables.fix_up(stop):
            return
        try:
            self._die(task, stop)
        except PageFault:  # the report has read memory that is corrupted too
            self._tainted.add(Taint.DIE)
            self._print("Fixing recursive fault but reboot is needed!", LOGLEVEL_ALERT)
        # Page faults have irqs disabled here: do_user_addr_fault() checks SMAP before it enables them.
        is_fault = stop.vector == PAGE_FAULT
        self._note_atomic_exit(task, irqs_off=is_fault)
        raise TaskExit(SIGKILL if is_fault else SIGSEGV, oops=True)

    def _note_atomic_exit(self, task: Task, *, irqs_off: bool = False) -> None:
        """Log that a task dies in atomic context (``make_task_dead``)."""
        note = f"note: {task.comm}[{task.pid}] exited with"
        if irqs_off or not self._sched.interrupts_on:
            self._print(f"{note} irqs disabled", LOGLEVEL_INFO)
        count = self._sched.preempt_count
        if count:
            self._print(f"{note} preempt_count {count}", LOGLEVEL_INFO)

    def _service_bug(self, task: Task, error: Exception) -> None:
        """Report an unexpected exception of a service like a BUG() in its source file."""
        *_, frame = traceback.extract_tb(error.__traceback__)
        file = frame.filename[frame.filename.rfind("/machine/") + 1 :]
        self._print(CUT_HERE)
        self._print(f"kernel BUG at {file}:{frame.lineno}!", LOGLEVEL_CRIT)
        self._die(task, Stop(StopReason.EXCEPTION, vector=INVALID_OPCODE))
        self._note_atomic_exit(task)

    def _report_ignored_signal(self, task: Task) -> None:
        self._print(
            f"klpfs: {task.comm}[{task.pid}] was killed because it ignored a signal in the kernel",
            LOGLEVEL_INFO,
        )

    def _schedule_bug(self, task: Task) -> None:
        """``__schedule_bug``: report a task that sleeps with preemption off."""
        count = self._sched.preempt_count
        self._print(
            f"BUG: scheduling while atomic: {task.comm}/{task.pid}/{count:#010x}", LOGLEVEL_ERR
        )
        self._print_modules()
        self.dump_stack()
        self._tainted.add(Taint.WARN)

    def _might_resched(self, file: str, line: int) -> None:
        """``__might_resched``: report a task in atomic context that may sleep; at most once a second."""
        now = self._sched.clock.ticks()
        if self._last_might_resched is not None and now < self._last_might_resched + HZ:
            return
        self._last_might_resched = now
        task, count = self._sched.current, self._sched.preempt_count
        self._print(
            f"BUG: sleeping function called from invalid context at {file}:{line}", LOGLEVEL_ERR
        )
        self._print(
            f"in_atomic(): {int(count > 0)}, irqs_disabled(): {int(not self._sched.interrupts_on)}, "
            f"non_block: 0, pid: {task.pid}, name: {task.comm}",
            LOGLEVEL_ERR,
        )
        self._print(f"preempt_count: {count:x}, expected: 0", LOGLEVEL_ERR)
        self.dump_stack()
        self._tainted.add(Taint.WARN)

    # -- WARN and BUG -----------------------------------------------------------------------------

    def _find_bug(self, address: int) -> tuple[int, str, int, int] | None:
        """``find_bug``: look up the ud2 at ``address`` in the bug tables. Returns the address of the
        entry's flags, the file, the line and the flags; None if there is no entry."""
        space = self._computer.space
        size, flags_at = 12, 10  # bug_addr_disp, file_disp: s32; line, flags: u16
        for start, end in self.bug_tables:
            for entry in range(start, end - size + 1, size):
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

    def _report_bug(self, task: Task) -> bool:
        """``report_bug``: report a WARN or BUG. Returns True for a WARN, after which the task continues
        behind the ud2."""
        rip = self._cpu["rip"]
        try:
            if self._computer.memory.read(rip, 2) != UD2:
                return False
        except PageFault:
            return False
        bug = self._find_bug(rip)
        if bug is None:
            return False
        flags_address, file, line, flags = bug
        if not flags & BUGFLAG_WARNING:
            self._print(CUT_HERE)
            self._print(f"kernel BUG at {file}:{line}!", LOGLEVEL_CRIT)
            return False
        once = flags & BUGFLAG_ONCE
        if not (once and flags & BUGFLAG_DONE):
            if once:
                self._computer.memory.write(
                    flags_address, (flags | BUGFLAG_DONE).to_bytes(2, "little")
                )
            if not flags & BUGFLAG_NO_CUT_HERE:
                self._print(CUT_HERE)
            where = self._computer.symbols.sprint_symbol(rip)
            self._print(f"WARNING: CPU: 0 PID: {task.pid} at {file}:{line} {where}")
            self._tainted.add(Taint.WARN)
            self._print_modules()
            self._print(self._cpu_line(task))
            self._show_regs(Stop(StopReason.EXCEPTION, vector=INVALID_OPCODE))
            self._call_trace(task)
            self._print(END_TRACE)
        self._cpu["rip"] = rip + len(UD2)
        return True

    def warn(self, file: str, line: int, function: str, message: str = "") -> None:
        """Report a ``WARN_ON()`` of a kernel service in Python, or a ``WARN()`` if there is a message."""
        task = self._sched.current
        self._print(CUT_HERE)
        if message:
            self._print(message)
        self._print(f"WARNING: CPU: 0 PID: {task.pid} at {file}:{line} {function}")
        self._print_modules()
        self._print(self._cpu_line(task))
        self._print(END_TRACE)
        self._tainted.add(Taint.WARN)

    # -- Oops -------------------------------------------------------------------------------------

    def _print(self, line: str, level: int = LOGLEVEL_WARNING) -> None:
        """Log a line, at KERN_DEFAULT unless a level is given."""
        self._printk(level, line)

    def _print_modules(self) -> None:
        """``print_modules``."""
        for line in self.on_print_modules:
            self._print(line())

    def _cpu_line(self, task: Task) -> str:
        """Return the line of ``dump_stack_print_info``."""
        release = self._computer.image.release
        return f"CPU: 0 PID: {task.pid} Comm: {task.comm} {self._tainted} {release} #1"

    def _die(self, task: Task, stop: Stop) -> None:
        """``die``, ``page_fault_oops``: report an Oops."""
        self._die_counter += 1
        self._tainted.debug_locks = False  # oops_enter()
        for hook in self.on_oops:
            hook()
        error_code = 0
        if stop.vector == PAGE_FAULT and self._is_guard_page(task, stop.address):
            self._print(
                f"BUG: TASK stack guard page was hit at {stop.address:016x} (stack is "
                f"{task.stack:016x}..{task.stack + THREAD_SIZE:016x})",
                LOGLEVEL_EMERG,
            )
            title = "stack guard page"
        elif stop.vector == PAGE_FAULT:
            error_code = self._page_fault_code(stop.address)
            self._show_fault_oops(stop.address, error_code)
            title = "Oops"
        elif stop.vector == GENERAL_PROTECTION:
            title = _GPF + self._gp_hint(stop.address)
        elif stop.vector >= FIRST_EXTERNAL_VECTOR or stop.vector not in _TITLES:
            # an "int n" instruction without a gate in the IDT
            error_code = stop.vector << 3 | _GP_IDT
            title = f"segment-related {_GPF}"
        else:
            title = _TITLES[stop.vector]
        self._print(f"{title}: {error_code:04x} [#{self._die_counter}]{self._built_with}")
        self._print(self._cpu_line(task))
        self._show_regs(stop)
        self._call_trace(task)
        self._print_modules()
        if stop.vector == PAGE_FAULT:
            self._print(f"CR2: {stop.address:016x}")
        self._print(END_TRACE)
        self._show_regs(stop)  # "in case the oops scrolled away"
        self._tainted.add(Taint.DIE)
        if not self._computer.image.booted:
            self._note_not_booted(stop, error_code, title)

    def _note_not_booted(self, stop: Stop, error_code: int, title: str) -> None:
        """Log that a fault in code of the kernel may have its cause in the missing boot. Faults in code of
        a module get no note. This line is not Linux's."""
        address = self._cpu["rip"]
        if error_code & _PF_INSTR:
            address = self._computer.space.read_u64(self._cpu["rsp"]) - 1  # in the caller
        found = self._computer.symbols.lookup_address(address)
        if found is None or found.module is not None:
            return
        verb = (
            "calls" if error_code & _PF_INSTR else "writes" if error_code & _PF_WRITE else "reads"
        )
        does = f"{verb} {stop.address:#x}" if stop.vector == PAGE_FAULT else f"ends in: {title}"
        self._print(
            f"klpfs: {found.symbol.name} {does}; this kernel was not booted, so data that the function "
            "uses may be missing"
        )

    @staticmethod
    def _is_guard_page(task: Task, address: int) -> bool:
        return task.stack - PAGE_SIZE <= address < task.stack

    def _gp_hint(self, address: int) -> str:
        """``get_kernel_gp_address``: return a hint for the title if the instruction has used an address that
        is not canonical, or an empty string."""
        if not address:
            try:
                code = self._code(self._cpu["rip"], _INSTRUCTION_MAX)
            except PageFault:
                return ""
            address = disasm.memory_operand(code, self._cpu.registers())
        return "" if is_canonical(address) else f", probably for non-canonical address {address:#x}"

    def _page_fault_code(self, address: int) -> int:
        """Return the error code of the page fault at ``address``, which the emulator does not provide."""
        entry = self._computer.memory.entry(address)
        code = _PF_PROT if entry & PRESENT else 0
        rip = self._cpu["rip"]
        into_next_page = rip < address < rip + _INSTRUCTION_MAX and address % PAGE_SIZE == 0
        if address == rip or into_next_page:
            return code | _PF_INSTR
        if entry & PRESENT:
            return code | (0 if entry & WRITE else _PF_WRITE)
        try:
            here = self._code(rip, _INSTRUCTION_MAX)
        except PageFault:
            return code | _PF_INSTR
        return code | (_PF_WRITE if disasm.writes_memory(here) else 0)

    def _show_fault_oops(self, address: int, code: int) -> None:
        """``show_fault_oops``: log the kind of access and the page table entries."""
        if code & (_PF_INSTR | _PF_PROT) == _PF_INSTR | _PF_PROT:
            entry = self._computer.memory.entry(address)
            if entry & NX:
                self._print(
                    "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
                    LOGLEVEL_CRIT,
                )
        if address < PAGE_SIZE:
            self._print(
                f"BUG: kernel NULL pointer dereference, address: {address:016x}", LOGLEVEL_ALERT
            )
        else:
            self._print(
                f"BUG: unable to handle page fault for address: {address:016x}", LOGLEVEL_ALERT
            )
        access = (
            "instruction fetch" if code & _PF_INSTR else ("write" if code & _PF_WRITE else "read")
        )
        self._print(
            f"#PF: supervisor {access if code & _PF_INSTR else access + ' access'} in kernel mode",
            LOGLEVEL_ALERT,
        )
        reason = "permissions violation" if code & _PF_PROT else "not-present page"
        self._print(f"#PF: error_code({code:#06x}) - {reason}", LOGLEVEL_ALERT)
        entries = self._computer.memory.walk(address)
        levels = zip(("PGD", "P4D", "PUD", "PMD", "PTE"), [entries[0], *entries], strict=False)
        line = "".join(f"{level} {entry:x} " for level, entry in levels)
        self._print(line if len(entries) < 4 else line.rstrip(), LOGLEVEL_INFO)

    def _code(self, rip: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``rip``. Raises PageFault if there are none."""
        code = b""
        while len(code) < size:
            try:
                code += self._computer.memory.read(rip + len(code), 1)
            except PageFault:
                if not code:
                    raise
                break
        return code

    def _code_line(self, rip: int) -> str:
        """``show_opcodes``: return the line with the bytes around RIP."""
        try:
            before = self._computer.memory.read(rip - _CODE_BEFORE, _CODE_BEFORE)
            here = self._code(rip, _CODE_BYTES - _CODE_BEFORE)
        except PageFault:
            start = (rip - _CODE_BEFORE) & (1 << 64) - 1
            return f"Code: Unable to access opcode bytes at {start:#x}."
        words = [f"{byte:02x}" for byte in before + here]
        words[_CODE_BEFORE] = f"<{words[_CODE_BEFORE]}>"
        return "Code: " + " ".join(words)

    def _show_regs(self, stop: Stop) -> None:
        """``__show_regs``: log the registers."""
        r = self._cpu.registers()
        self._print(f"RIP: 0010:{self._computer.symbols.sprint_symbol(r['rip'])}")
        self._print(self._code_line(r["rip"]))
        self._print(f"RSP: 0018:{r['rsp']:016x} EFLAGS: {r['eflags']:08x}")
        for names in (
            ("rax", "rbx", "rcx"),
            ("rdx", "rsi", "rdi"),
            ("rbp", "r8", "r9"),
            ("r10", "r11", "r12"),
            ("r13", "r14", "r15"),
        ):
            self._print(" ".join(f"{name.upper():>3}: {r[name]:016x}" for name in names))
        cr = self._cpu.control_registers()
        cr2 = stop.address if stop.vector == PAGE_FAULT else cr["cr2"]
        self._print(f"CS:  0010 DS: 0000 ES: 0000 CR0: {cr['cr0']:016x}")
        self._print(f"CR2: {cr2:016x} CR3: {cr['cr3']:016x} CR4: {cr['cr4']:016x}")

    def _call_trace(self, task: Task) -> None:
        """``show_trace_log_lvl``: log the return addresses on the stack. Words that look like a return
        address but are not part of a frame get a question mark."""
        reliable = self._stack.return_addresses(task)
        self._print("Call Trace:")
        self._print(" <TASK>")
        lines = 0
        for at, address in self._stack.words(task):
            if self._sched.is_return(address):
                continue
            if at in reliable or self._stack.is_text(address):
                mark = "" if at in reliable else "? "
                self._print(f" {mark}{self._computer.symbols.sprint_backtrace(address)}")
                lines += 1
                if lines == _TRACE_MAX:
                    break
        self._print(" </TASK>")

    def show_running(self, task: Task) -> None:
        """Where the running task was stopped: ``print_modules`` and ``show_regs``."""
        self._print_modules()
        self._print(self._cpu_line(task))
        self._show_regs(Stop(StopReason.EXPIRED))
        self._call_trace(task)

    def show_task(self, task: Task, level: int = LOGLEVEL_INFO) -> None:
        """``sched_show_task``: log state and stack of a task that does not run."""
        letter = {0: "R", 1: "S", 2: "D"}.get(int(task.state) & 3, "X")
        flags = int(task.struct.thread_info.flags)
        self._print(
            f"task:{task.comm:<15.15} state:{letter} stack:{0:<5} pid:{task.pid:<5} "
            f"ppid:{self._sched.parent_pid(task):<6} flags:{flags:#010x}",
            level,
        )
        self._print("Call Trace:", level)
        self._print(" <TASK>", level)
        for address in self._stack.walk(task):
            if address and address != self._sched.guest_return:
                self._print(f" {self._computer.symbols.sprint_backtrace(address)}", level)
        self._print(" </TASK>", level)

    @service("dump_stack")
    def dump_stack(self) -> None:
        task = self._sched.current
        self._print(self._cpu_line(task))
        self._call_trace(task)

    @service("panic")
    async def panic(self, fmt: Ptr) -> None:
        """End the current task. The machine goes on, and so does the mount."""
        task = self._sched.current
        message = await vscnprintf_here(self._computer, task, fmt, fixed=1)
        self.panic_with(as_text(message).rstrip())

    def panic_with(self, reason: str) -> NoReturn:
        """Like `panic`, for a service. Raises TaskExit."""
        self._print(f"Kernel panic - not syncing: {reason}", LOGLEVEL_EMERG)
        self.dump_stack()
        self._print(f"---[ end Kernel panic - not syncing: {reason} ]---", LOGLEVEL_EMERG)
        raise TaskExit(errno.EIO, oops=True)
