# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of registers, code and stacks in reports. arch/x86/kernel/dumpstack.c, arch/x86/kernel/process_64.c,
lib/dump_stack.c."""

from __future__ import annotations

from collections.abc import Callable

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop, StopReason
from klpfs.machine.kernel.oops.taint import Tainted
from klpfs.machine.kernel.printk.printk import LOGLEVEL_INFO, LOGLEVEL_WARNING, Printk
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import service
from klpfs.machine.kernel.trapnr import PAGE_FAULT
from klpfs.machine.memory import Memory, PageFault

_CALL, _CALL_RAX = 0xE8, b"\xff\xd0"
_SEARCHED = 512
"""Bytes of a function that are searched for a call instruction."""
_TRACE_MAX = 128
"""Most lines of a call trace. A stack that has overflowed is full of return addresses."""
_CODE_BEFORE, _CODE_BYTES = 42, 64
"""Bytes of code in a report: those before RIP, and all."""
_REGISTER_LINES = (
    ("rax", "rbx", "rcx"),
    ("rdx", "rsi", "rdi"),
    ("rbp", "r8", "r9"),
    ("r10", "r11", "r12"),
    ("r13", "r14", "r15"),
)
_LABELS = {name: name.upper() for line in _REGISTER_LINES for name in line}
_LABELS |= {"r8": "R08", "r9": "R09"}
_USER_EFLAGS = 0x202
"""The flags that are always set in user mode: IF, and bit 1, which is reserved."""
_MINUS_ENOSYS = (1 << 64) - 38
"""RAX at the entry of a system call (``PUSH_AND_CLEAR_REGS rax=$-ENOSYS``)."""


def read_code(memory: Memory, rip: int, size: int) -> bytes:
    """Return up to ``size`` bytes at ``rip``. Raises PageFault if there are none."""
    code = b""
    while len(code) < size:
        try:
            code += memory.read(rip + len(code), 1)
        except PageFault:
            if not code:
                raise
            break
    return code


def _code_line(code: bytes) -> str:
    """Return the line for the bytes around RIP."""
    words = [f"{byte:02x}" for byte in code]
    words[_CODE_BEFORE] = f"<{words[_CODE_BEFORE]}>"
    return "Code: " + " ".join(words)


def _syscall_frames(computer: Computer) -> list[int]:
    """Return the return addresses that a system call leaves on the stack, innermost first."""
    symbols, space = computer.symbols, computer.space
    inner = symbols.lookup("do_syscall_64")
    outer = symbols.lookup("entry_SYSCALL_64_after_hwframe")
    if not inner or not outer:
        return []
    frames = []
    code = read_code(computer.memory, inner, _SEARCHED)
    for at in range(len(code) - 5):
        target = (inner + at + 5 + space.read_s32(inner + at + 1)) & (1 << 64) - 1
        found = symbols.lookup_address(target) if code[at] == _CALL else None
        if found and found.symbol.name.startswith("__x86_indirect_thunk_"):
            frames.append(inner + at + 5)
            break
        if code[at : at + 2] == _CALL_RAX:
            frames.append(inner + at + 2)
            break
    code = read_code(computer.memory, outer, _SEARCHED)
    for at in range(len(code) - 5):
        target = (outer + at + 5 + space.read_s32(outer + at + 1)) & (1 << 64) - 1
        if code[at] == _CALL and target == inner:
            frames.append(outer + at + 5)
            break
    else:
        frames.append(outer + 1)
    return frames


class DumpStack:
    """Logs the state of tasks for reports."""

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        *,
        printk: Printk,
        tainted: Tainted,
        stack: StackTrace,
    ) -> None:
        self._computer = computer
        self._cpu = computer.cpu
        self._sched = sched
        self._printk = printk
        self._tainted = tainted
        self._stack = stack
        self._syscall_frames = _syscall_frames(computer)
        self.on_print_modules: list[Callable[[], str]] = []
        """Each returns a line about the modules for a report (``print_modules``)."""

    def _print(self, line: str, level: int = LOGLEVEL_WARNING) -> None:
        """Log a line, at KERN_DEFAULT unless a level is given."""
        self._printk(level, line)

    def print_modules(self) -> None:
        """``print_modules``: log the lines of `on_print_modules`."""
        for line in self.on_print_modules:
            self._print(line())

    def dump_stack_print_info(self, task: Task) -> None:
        """``dump_stack_print_info``: log the task, the taint and the release of the kernel."""
        release = self._computer.image.release
        self._print(f"CPU: 0 PID: {task.pid} Comm: {task.comm} {self._tainted} {release} #1")

    def show_regs(self, stop: Stop, registers: dict[str, int] | None = None) -> None:
        """``__show_regs``: log the registers of the running task, which ``stop`` has stopped.

        ``registers``: those to log instead of the present ones. The bases of FS and of the inactive GS
        are 0, because they belong to a process of the host.
        """
        r = registers or self._cpu.registers()
        self._print(f"RIP: 0010:{self._computer.symbols.sprint_symbol(r['rip'])}")
        self._print(self._code_line(r["rip"]))
        self._print(f"RSP: 0018:{r['rsp']:016x} EFLAGS: {r['eflags']:08x}")
        self._show_general_regs(r)
        cr = self._cpu.control_registers()
        cr2 = stop.address if stop.vector == PAGE_FAULT else cr["cr2"]
        self._print(f"FS:  {0:016x}(0000) GS:{self._cpu.gs_base:016x}(0000) knlGS:{0:016x}")
        self._print(f"CS:  0010 DS: 0000 ES: 0000 CR0: {cr['cr0']:016x}")
        self._print(f"CR2: {cr2:016x} CR3: {cr['cr3']:016x} CR4: {cr['cr4']:016x}")

    def _show_general_regs(self, r: dict[str, int], level: int = LOGLEVEL_WARNING) -> None:
        for names in _REGISTER_LINES:
            self._print(
                " ".join(f"{_LABELS[name]}: {r.get(name, 0):016x}" for name in names), level
            )

    def _code_line(self, rip: int) -> str:
        """``show_opcodes``: return the line with the bytes around RIP."""
        try:
            before = self._computer.memory.read(rip - _CODE_BEFORE, _CODE_BEFORE)
            here = read_code(self._computer.memory, rip, _CODE_BYTES - _CODE_BEFORE)
        except PageFault:
            start = (rip - _CODE_BEFORE) & (1 << 64) - 1
            return f"Code: Unable to access opcode bytes at {start:#x}."
        return _code_line(before + here)

    def _show_user_entry(self, task: Task, level: int = LOGLEVEL_WARNING) -> None:
        """Log the outermost frames of a system call, and the registers of its caller.

        Python code does the work of the functions between ``do_syscall_64`` and the guest's code. The
        caller is a process of the host: of its registers, the host shows those of the system call. The
        others are logged as 0. If the host shows none, only the frames are logged.
        """
        if task.user_registers is None:
            return
        for address in self._syscall_frames:
            self._print(f" {self._computer.symbols.sprint_backtrace(address)}", level)
        user = task.user_registers()
        if user is None:
            return
        self._print(f"RIP: 0033:{user.ip:#x}", level)
        if len(user.code) == _CODE_BYTES:
            self._print(_code_line(user.code), level)
        else:
            start = (user.ip - _CODE_BEFORE) & (1 << 64) - 1
            self._print(f"Code: Unable to access opcode bytes at {start:#x}.", level)
        self._print(
            f"RSP: 002b:{user.sp:016x} EFLAGS: {_USER_EFLAGS:08x} ORIG_RAX: {user.number:016x}",
            level,
        )
        arguments = zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), user.arguments, strict=True)
        syscall = {"rax": _MINUS_ENOSYS, "rcx": user.ip, "r11": _USER_EFLAGS}
        self._show_general_regs(dict(arguments) | syscall, level)

    def show_trace(self, task: Task) -> None:
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
        self._show_user_entry(task)
        self._print(" </TASK>")

    def show_running(self, task: Task) -> None:
        """Log where the running task was stopped: ``print_modules`` and ``show_regs``."""
        self.print_modules()
        self.dump_stack_print_info(task)
        self.show_regs(Stop(StopReason.EXPIRED))
        self.show_trace(task)

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
        self._show_user_entry(task, level)
        self._print(" </TASK>", level)

    @service("dump_stack")
    def dump_stack(self) -> None:
        task = self._sched.current
        self.dump_stack_print_info(task)
        self.show_trace(task)
