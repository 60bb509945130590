# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions of guest code: breakpoints, WARN and BUG, and the Oops for everything else.

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
from klpfs.machine.kernel.sched.core import THREAD_SIZE, Scheduler, Task, TaskExit
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.trace.text import Text
from klpfs.machine.kernel.vsprintf import text as as_text
from klpfs.machine.kernel.vsprintf import vscnprintf_here
from klpfs.machine.memory import NX, PAGE_SIZE, PRESENT, WRITE, PageFault, is_canonical

BREAKPOINT, INVALID_OPCODE, GENERAL_PROTECTION, PAGE_FAULT = 3, 6, 13, 14
FIRST_EXTERNAL_VECTOR = 32
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
_GP_IDT = 2  # in the error code: the selector is an index into the IDT
_INSTRUCTION_MAX = 15  # bytes
_FILE_NAME_MAX = 256
_TRACE_MAX = 128
"""Lines of a call trace; a stack that has overflowed could fill the log."""
_CODE_BEFORE, _CODE_BYTES = 42, 64


def _built_with(computer: Computer) -> str:
    """What ``__die_header`` says of the kernel's configuration."""
    words = computer.image.vermagic.split()
    preempt = " PREEMPT_RT" if "preempt_rt" in words else " PREEMPT"
    smp = " SMP" if "SMP" in words else ""
    has_pti = computer.symbols.lookup("pti_init") is not None
    return preempt + smp + (" NOPTI" if has_pti else "")


class Traps:
    """Deals with the exceptions of all tasks of one machine."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        printk: Printk,
        text: Text,
        stack: StackTrace,
        tainted: Tainted,
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
        self.on_oops: Callable[[], None] = lambda: None
        """Called before an Oops is reported (``oops_enter``)."""
        self.modules_linked_in: Callable[[], str] = str
        """The line that names the modules; set by the module loader."""
        self.bug_tables: list[tuple[int, int]] = []
        """Start and end of every ``__bug_table``, the kernel's and the modules'."""
        self.exception_tables = ExceptionTables(computer)
        sched.on_exception = self.handle
        sched.on_schedule_bug = self._schedule_bug
        sched.on_service_bug = self._service_bug
        sched.on_deaf = self._deaf
        sched.on_might_sleep = self._might_resched
        self._last_might_resched: int | None = None
        first = computer.symbols.lookup("__start___bug_table")
        last = computer.symbols.lookup("__stop___bug_table")
        if first and last:
            self.bug_tables.append((first, last))

    async def handle(self, task: Task, stop: Stop) -> None:
        """Let the task run on if the exception is one that the kernel uses; else report an Oops and
        end the task (TaskExit)."""
        if stop.vector == BREAKPOINT and self._text.handle_int3(task, stop):
            return
        if stop.vector == INVALID_OPCODE and self._report_bug(task):
            return
        if self.exception_tables.fix_up(stop):
            return
        try:
            self._oops(task, stop)
        except PageFault:  # what the report looks at is spoilt too
            self._tainted.add(Taint.DIE)
            self._say("Fixing recursive fault but reboot is needed!", LOGLEVEL_ALERT)
        # Since the SMAP check of do_user_addr_fault() comes before it has interrupts on again.
        is_fault = stop.vector == PAGE_FAULT
        self._note_atomic_exit(task, irqs_off=is_fault)
        raise TaskExit(SIGKILL if is_fault else SIGSEGV, oops=True)

    def _note_atomic_exit(self, task: Task, *, irqs_off: bool = False) -> None:
        """``make_task_dead``."""
        who = f"note: {task.comm}[{task.pid}] exited with"
        if irqs_off or not self._sched.interrupts_on:
            self._say(f"{who} irqs disabled", LOGLEVEL_INFO)
        count = self._sched.preempt_count
        if count:
            self._say(f"{who} preempt_count {count}", LOGLEVEL_INFO)

    def _service_bug(self, task: Task, error: Exception) -> None:
        """A service has failed as nobody thought it would: what BUG() says, about its own source."""
        *_, frame = traceback.extract_tb(error.__traceback__)
        file = frame.filename[frame.filename.rfind("/machine/") + 1 :]
        self._say(CUT_HERE)
        self._say(f"kernel BUG at {file}:{frame.lineno}!", LOGLEVEL_CRIT)
        self._oops(task, Stop(StopReason.EXCEPTION, vector=INVALID_OPCODE))
        self._note_atomic_exit(task)

    def _deaf(self, task: Task) -> None:
        self._say(
            f"klpfs: {task.comm}[{task.pid}] has a signal and goes on in the kernel: killed",
            LOGLEVEL_INFO,
        )

    def _schedule_bug(self, task: Task) -> None:
        """``__schedule_bug``."""
        count = self._sched.preempt_count
        self._say(
            f"BUG: scheduling while atomic: {task.comm}/{task.pid}/{count:#010x}", LOGLEVEL_ERR
        )
        self._say(self.modules_linked_in())
        self.dump_stack()
        self._tainted.add(Taint.WARN)

    def _might_resched(self, file: str, line: int) -> None:
        """``__might_resched``, once a second."""
        now = self._sched.clock.ticks()
        if self._last_might_resched is not None and now < self._last_might_resched + HZ:
            return
        self._last_might_resched = now
        task, count = self._sched.current, self._sched.preempt_count
        self._say(
            f"BUG: sleeping function called from invalid context at {file}:{line}", LOGLEVEL_ERR
        )
        self._say(
            f"in_atomic(): {int(count > 0)}, irqs_disabled(): {int(not self._sched.interrupts_on)}, "
            f"non_block: 0, pid: {task.pid}, name: {task.comm}",
            LOGLEVEL_ERR,
        )
        self._say(f"preempt_count: {count:x}, expected: 0", LOGLEVEL_ERR)
        self.dump_stack()
        self._tainted.add(Taint.WARN)

    # -- WARN and BUG -----------------------------------------------------------------------------

    def _find_bug(self, address: int) -> tuple[int, str, int, int] | None:
        """The entry for the ud2 at ``address``: its own address, file, line and flags."""
        space = self._computer.space
        size, flags_at = 12, 10  # bug_addr_disp, file_disp: s32; line, flags: u16
        for start, end in self.bug_tables:
            for entry in range(start, end - size + 1, size):
                if (entry + space.read_s32(entry)) & (1 << 64) - 1 == address:
                    file_at = (entry + 4 + space.read_s32(entry + 4)) & (1 << 64) - 1
                    try:
                        file = space.read_string(file_at, _FILE_NAME_MAX)
                    except PageFault:  # a table that is not the compiler's
                        file = "(efault)"
                    line = int.from_bytes(self._computer.memory.read(entry + 8, 2), "little")
                    flags = int.from_bytes(
                        self._computer.memory.read(entry + flags_at, 2), "little"
                    )
                    return entry + flags_at, file, line, flags
        return None

    def _report_bug(self, task: Task) -> bool:
        """``report_bug``: True for a WARN, after which the task goes on behind the ud2."""
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
            self._say(CUT_HERE)
            self._say(f"kernel BUG at {file}:{line}!", LOGLEVEL_CRIT)
            return False
        once = flags & BUGFLAG_ONCE
        if not (once and flags & BUGFLAG_DONE):
            if once:
                self._computer.memory.write(
                    flags_address, (flags | BUGFLAG_DONE).to_bytes(2, "little")
                )
            if not flags & BUGFLAG_NO_CUT_HERE:
                self._say(CUT_HERE)
            where = self._computer.symbols.sprint_symbol(rip)
            self._say(f"WARNING: CPU: 0 PID: {task.pid} at {file}:{line} {where}")
            self._tainted.add(Taint.WARN)
            self._say(self.modules_linked_in())
            self._say(self._cpu_line(task))
            self._show_regs(Stop(StopReason.EXCEPTION, vector=INVALID_OPCODE))
            self._call_trace(task)
            self._say(END_TRACE)
        self._cpu["rip"] = rip + len(UD2)
        return True

    def warn(self, file: str, line: int, function: str, message: str = "") -> None:
        """``WARN_ON`` of a kernel service that is written in Python; with a message, ``WARN``."""
        task = self._sched.current
        self._say(CUT_HERE)
        if message:
            self._say(message)
        self._say(f"WARNING: CPU: 0 PID: {task.pid} at {file}:{line} {function}")
        self._say(self.modules_linked_in())
        self._say(self._cpu_line(task))
        self._say(END_TRACE)
        self._tainted.add(Taint.WARN)

    # -- Oops -------------------------------------------------------------------------------------

    def _say(self, line: str, level: int = LOGLEVEL_WARNING) -> None:
        self._printk(level, line)

    def _cpu_line(self, task: Task) -> str:
        release = self._computer.image.release
        return f"CPU: 0 PID: {task.pid} Comm: {task.comm} {self._tainted} {release} #1"

    def _oops(self, task: Task, stop: Stop) -> None:
        self._die_counter += 1
        self._tainted.debug_locks = False  # oops_enter()
        self.on_oops()
        error_code = 0
        if stop.vector == PAGE_FAULT and self._is_guard_page(task, stop.address):
            self._say(
                f"BUG: TASK stack guard page was hit at {stop.address:016x} (stack is "
                f"{task.stack:016x}..{task.stack + THREAD_SIZE:016x})",
                LOGLEVEL_EMERG,
            )
            title = "stack guard page"
        elif stop.vector == PAGE_FAULT:
            error_code = self._page_fault_code(stop.address)
            self._say_page_fault(stop.address, error_code)
            title = "Oops"
        elif stop.vector == GENERAL_PROTECTION:
            title = _GPF + self._gp_hint(stop.address)
        elif stop.vector >= FIRST_EXTERNAL_VECTOR or stop.vector not in _TITLES:
            # "int n" for which there is no gate
            error_code = stop.vector << 3 | _GP_IDT
            title = f"segment-related {_GPF}"
        else:
            title = _TITLES[stop.vector]
        self._say(f"{title}: {error_code:04x} [#{self._die_counter}]{self._built_with}")
        self._say(self._cpu_line(task))
        self._show_regs(stop)
        self._call_trace(task)
        self._say(self.modules_linked_in())
        if stop.vector == PAGE_FAULT:
            self._say(f"CR2: {stop.address:016x}")
        self._say(END_TRACE)
        self._show_regs(stop)  # "in case the oops scrolled away"
        self._tainted.add(Taint.DIE)
        if not self._computer.image.booted:
            self._doubt(stop, error_code, title)

    def _doubt(self, stop: Stop, error_code: int, title: str) -> None:
        """No kernel says this: what faults in one that was not booted might not in one that was. A
        module's own code is as it ever is, and the fault its own."""
        address = self._cpu["rip"]
        if error_code & _PF_INSTR:
            address = self._computer.space.read_u64(self._cpu["rsp"]) - 1  # who called
        found = self._computer.symbols.lookup_address(address)
        if found is None or found.module is not None:
            return
        verb = (
            "calls" if error_code & _PF_INSTR else "writes" if error_code & _PF_WRITE else "reads"
        )
        does = f"{verb} {stop.address:#x}" if stop.vector == PAGE_FAULT else f"ends in: {title}"
        self._say(
            f"klpfs: {found.symbol.name} {does}; this kernel was not booted, and may lack what that "
            "function works on"
        )

    @staticmethod
    def _is_guard_page(task: Task, address: int) -> bool:
        return task.stack - PAGE_SIZE <= address < task.stack

    def _gp_hint(self, address: int) -> str:
        """``get_kernel_gp_address``: the address that the instruction uses, if that is why."""
        if not address:
            try:
                code = self._code(self._cpu["rip"], _INSTRUCTION_MAX)
            except PageFault:
                return ""
            address = disasm.memory_operand(code, self._cpu.registers())
        return "" if is_canonical(address) else f", probably for non-canonical address {address:#x}"

    def _page_fault_code(self, address: int) -> int:
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

    def _say_page_fault(self, address: int, code: int) -> None:
        if code & (_PF_INSTR | _PF_PROT) == _PF_INSTR | _PF_PROT:
            entry = self._computer.memory.entry(address)
            if entry & NX:
                self._say(
                    "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
                    LOGLEVEL_CRIT,
                )
        if address < PAGE_SIZE:
            self._say(
                f"BUG: kernel NULL pointer dereference, address: {address:016x}", LOGLEVEL_ALERT
            )
        else:
            self._say(
                f"BUG: unable to handle page fault for address: {address:016x}", LOGLEVEL_ALERT
            )
        access = (
            "instruction fetch" if code & _PF_INSTR else ("write" if code & _PF_WRITE else "read")
        )
        self._say(
            f"#PF: supervisor {access if code & _PF_INSTR else access + ' access'} in kernel mode",
            LOGLEVEL_ALERT,
        )
        why = "permissions violation" if code & _PF_PROT else "not-present page"
        self._say(f"#PF: error_code({code:#06x}) - {why}", LOGLEVEL_ALERT)
        entries = self._computer.memory.walk(address)
        levels = zip(("PGD", "P4D", "PUD", "PMD", "PTE"), [entries[0], *entries], strict=False)
        line = "".join(f"{level} {entry:x} " for level, entry in levels)
        self._say(line if len(entries) < 4 else line.rstrip(), LOGLEVEL_INFO)

    def _code(self, rip: int, size: int) -> bytes:
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
        """The bytes around RIP, the one at RIP in angle brackets."""
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
        """``__show_regs``."""
        r = self._cpu.registers()
        self._say(f"RIP: 0010:{self._computer.symbols.sprint_symbol(r['rip'])}")
        self._say(self._code_line(r["rip"]))
        self._say(f"RSP: 0018:{r['rsp']:016x} EFLAGS: {r['eflags']:08x}")
        for names in (
            ("rax", "rbx", "rcx"),
            ("rdx", "rsi", "rdi"),
            ("rbp", "r8", "r9"),
            ("r10", "r11", "r12"),
            ("r13", "r14", "r15"),
        ):
            self._say(" ".join(f"{name.upper():>3}: {r[name]:016x}" for name in names))
        cr = self._cpu.control_registers()
        cr2 = stop.address if stop.vector == PAGE_FAULT else cr["cr2"]
        self._say(f"CS:  0010 DS: 0000 ES: 0000 CR0: {cr['cr0']:016x}")
        self._say(f"CR2: {cr2:016x} CR3: {cr['cr3']:016x} CR4: {cr['cr4']:016x}")

    def _call_trace(self, task: Task) -> None:
        """``show_trace_log_lvl``: what the frames say, and with a question mark what else on the stack
        looks like a return address."""
        certain = self._stack.return_addresses(task)
        self._say("Call Trace:")
        self._say(" <TASK>")
        lines = 0
        for at, address in self._stack.words(task):
            if self._sched.is_return(address):
                continue
            if at in certain or self._stack.is_text(address):
                doubt = "" if at in certain else "? "
                self._say(f" {doubt}{self._computer.symbols.sprint_backtrace(address)}")
                lines += 1
                if lines == _TRACE_MAX:  # a stack that has overflowed is full of them
                    break
        self._say(" </TASK>")

    def show_running(self, task: Task) -> None:
        """Where the running task was stopped: ``print_modules`` and ``show_regs``."""
        self._say(self.modules_linked_in())
        self._say(self._cpu_line(task))
        self._show_regs(Stop(StopReason.EXPIRED))
        self._call_trace(task)

    def show_task(self, task: Task, level: int = LOGLEVEL_INFO) -> None:
        """``sched_show_task``: a task that does not run."""
        letter = {0: "R", 1: "S", 2: "D"}.get(int(task.state) & 3, "X")
        flags = int(task.struct.thread_info.flags)
        self._say(
            f"task:{task.comm:<15.15} state:{letter} stack:{0:<5} pid:{task.pid:<5} "
            f"ppid:{self._sched.parent_pid(task):<6} flags:{flags:#010x}",
            level,
        )
        self._say("Call Trace:", level)
        self._say(" <TASK>", level)
        for address in self._stack.walk(task):
            if address and address != self._sched.guest_return:
                self._say(f" {self._computer.symbols.sprint_backtrace(address)}", level)
        self._say(" </TASK>", level)

    @service("dump_stack")
    def dump_stack(self) -> None:
        task = self._sched.current
        self._say(self._cpu_line(task))
        self._call_trace(task)

    @service("panic")
    async def panic(self, fmt: Ptr) -> None:
        """The machine does not stop for it, only the task does: the mount goes on."""
        task = self._sched.current
        message = await vscnprintf_here(self._computer, task, fmt, fixed=1)
        self.panic_with(as_text(message).rstrip())

    def panic_with(self, reason: str) -> NoReturn:
        """The same for a service. Raises TaskExit."""
        self._say(f"Kernel panic - not syncing: {reason}", LOGLEVEL_EMERG)
        self.dump_stack()
        self._say(f"---[ end Kernel panic - not syncing: {reason} ]---", LOGLEVEL_EMERG)
        raise TaskExit(errno.EIO, oops=True)
