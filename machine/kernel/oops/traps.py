# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions of guest code, and what ends its task: Oops, panic(), errors of the scheduler.

arch/x86/kernel/traps.c, kernel/panic.c, kernel/sched/core.c.
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
from klpfs.machine.kernel.oops.bug import END_TRACE, Bugs
from klpfs.machine.kernel.oops.dumpstack import DumpStack, read_code
from klpfs.machine.kernel.oops.extable import ExceptionTables
from klpfs.machine.kernel.oops.fault import (
    INSTRUCTION_MAX,
    X86_PF_INSTR,
    X86_PF_WRITE,
    page_fault_code,
    show_fault_oops,
)
from klpfs.machine.kernel.oops.taint import Taint, Tainted
from klpfs.machine.kernel.printk.printk import (
    LOGLEVEL_ALERT,
    LOGLEVEL_EMERG,
    LOGLEVEL_ERR,
    LOGLEVEL_INFO,
    LOGLEVEL_WARNING,
    Printk,
)
from klpfs.machine.kernel.sched.core import Scheduler, Task
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
from klpfs.machine.memory import PAGE_SIZE, PageFault, is_canonical

_GPF = "general protection fault"
_TITLES = {
    0: "divide error", 1: "debug", BREAKPOINT: "int3", 4: "overflow", 5: "bounds",
    INVALID_OPCODE: "invalid opcode", 7: "device not available", 8: "double fault",
    10: "invalid TSS", 11: "segment not present", 12: "stack segment", GENERAL_PROTECTION: _GPF,
    16: "x87 FPU error", 17: "alignment check", 19: "simd exception",
}  # fmt: skip
_GP_IDT = 2  # bit of the error code: the selector is an index into the IDT


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
        dumpstack: DumpStack,
        bugs: Bugs,
    ) -> None:
        self._computer = computer
        self._cpu = computer.cpu
        self._sched = sched
        self._printk = printk
        self._text = text
        self._tainted = tainted
        self._dumpstack = dumpstack
        self._bugs = bugs
        self._die_counter = 0
        self._first_oops: dict[str, int] | None = None
        """The registers of the first Oops (``exec_summary_regs``)."""
        self.oops_count = 0
        """Number of tasks that an Oops has killed, /sys/kernel/oops_count."""
        self._built_with = _built_with(computer)
        self.on_oops: list[Callable[[], None]] = []
        """Called before an Oops is reported (``oops_enter``)."""
        self.exception_tables = ExceptionTables(computer)
        sched.on_exception.append(self.handle)
        sched.on_schedule_bug.append(self._schedule_bug)
        sched.on_service_bug.append(self._service_bug)
        sched.on_signal_ignored.append(self._report_ignored_signal)
        sched.on_killed_asleep.append(self._report_killed_asleep)
        sched.on_might_sleep.append(self._might_resched)
        self._last_might_resched: int | None = None

    def _print(self, line: str, level: int = LOGLEVEL_WARNING) -> None:
        """Log a line, at KERN_DEFAULT unless a level is given."""
        self._printk(level, line)

    async def handle(self, task: Task, stop: Stop) -> None:
        """Handle an exception of ``task``. Returns if it was a breakpoint of text_poke(), a WARN, or has a
        fixup. Else reports an Oops and raises TaskExit."""
        if stop.vector == BREAKPOINT and self._text.handle_int3(task, stop):
            return
        if stop.vector == INVALID_OPCODE and self._bugs.report_bug(task):
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
        """Count a task that dies of an Oops, and log that it dies in atomic context
        (``make_task_dead``)."""
        self.oops_count += 1
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
        self._bugs.print_bug(file, frame.lineno or 0)
        self._die(task, Stop(StopReason.EXCEPTION, vector=INVALID_OPCODE))
        self._note_atomic_exit(task)

    def _report_ignored_signal(self, task: Task) -> None:
        self._print(
            f"klpfs: {task.comm}[{task.pid}] was killed because it ignored a signal in the kernel",
            LOGLEVEL_INFO,
        )

    def _report_killed_asleep(self, task: Task) -> None:
        self._print(
            f"klpfs: {task.comm}[{task.pid}] was killed in an uninterruptible sleep; in Linux it would "
            "sleep on",
            LOGLEVEL_INFO,
        )
        self._dumpstack.show_task(task)

    def _schedule_bug(self, task: Task) -> None:
        """``__schedule_bug``: report a task that sleeps with preemption off."""
        count = self._sched.preempt_count
        self._print(
            f"BUG: scheduling while atomic: {task.comm}/{task.pid}/{count:#010x}", LOGLEVEL_ERR
        )
        self._dumpstack.print_modules()
        self._bugs.warn_count += 1
        self._dumpstack.dump_stack()
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
        self._dumpstack.dump_stack()
        self._tainted.add(Taint.WARN)

    # -- Oops -------------------------------------------------------------------------------------

    def _die(self, task: Task, stop: Stop) -> None:
        """``die``, ``page_fault_oops``: report an Oops."""
        if self._first_oops is None:
            self._first_oops = self._cpu.registers()
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
            error_code = page_fault_code(self._computer, stop.address)
            show_fault_oops(self._computer, self._printk, stop.address, error_code)
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
        self._dumpstack.dump_stack_print_info(task)
        self._dumpstack.show_regs(stop)
        self._dumpstack.show_trace(task)
        self._dumpstack.print_modules()
        if stop.vector == PAGE_FAULT:
            self._print(f"CR2: {stop.address:016x}")
        self._print(END_TRACE)
        self._dumpstack.show_regs(stop, self._first_oops)  # "in case the oops scrolled away"
        self._tainted.add(Taint.DIE)
        if not self._computer.image.booted:
            self._note_not_booted(stop, error_code, title)

    def _note_not_booted(self, stop: Stop, error_code: int, title: str) -> None:
        """Log that a fault in code of the kernel may have its cause in the missing boot. Faults in code of
        a module get no note. This line is not Linux's."""
        address = self._cpu["rip"]
        if error_code & X86_PF_INSTR:
            address = self._computer.space.read_u64(self._cpu["rsp"]) - 1  # in the caller
        found = self._computer.symbols.lookup_address(address)
        if found is None or found.module is not None:
            return
        verb = (
            "calls"
            if error_code & X86_PF_INSTR
            else "writes"
            if error_code & X86_PF_WRITE
            else "reads"
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
                code = read_code(self._computer.memory, self._cpu["rip"], INSTRUCTION_MAX)
            except PageFault:
                return ""
            address = disasm.memory_operand(code, self._cpu.registers())
        return "" if is_canonical(address) else f", probably for non-canonical address {address:#x}"

    @service("panic")
    async def panic(self, fmt: Ptr) -> None:
        """End the current task. The machine goes on, and so does the mount."""
        task = self._sched.current
        message = await vscnprintf_here(self._computer, task, fmt, fixed=1)
        self.panic_with(as_text(message).rstrip())

    def panic_with(self, reason: str) -> NoReturn:
        """Like `panic`, for a service. Raises TaskExit."""
        self._print(f"Kernel panic - not syncing: {reason}", LOGLEVEL_EMERG)
        self._dumpstack.dump_stack()
        self._print(f"---[ end Kernel panic - not syncing: {reason} ]---", LOGLEVEL_EMERG)
        raise TaskExit(errno.EIO, oops=True)
