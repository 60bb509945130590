# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor: unicorn in 64-bit mode with real page tables.

This is the only file that imports unicorn. Guest code runs in slices; a `Stop` tells why a slice
ended. Guest code calls Python with a *trap*: the bytes ``out imm8, al; jmp .+2; ret``. The jump
ends the translated block, so that a stop requested in the ``out`` takes effect there, and leaves
RIP at the ``ret``.

Guest code runs in ring 0 and can write to system registers (CR3, MSRs, segments). Such a write
lasts until the end of the slice. Then the registers are restored, and the task gets a general
protection fault, as from a hypervisor that forbids the write.
"""

from __future__ import annotations

import ctypes
import enum
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import unicorn
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from klpfs.machine.memory import NX, PAGE_SIZE, Memory, PageFault
from klpfs.machine.ticker import Ticker

TRAP = bytes.fromhex("e610eb00c3")
"""A trap into Python. It is as long as the call of ``__fentry__`` at the start of a function."""
_TRAP_RET = len(TRAP) - 1
_TRAP_STEPS = (0, 2, _TRAP_RET)  # the offsets of its instructions
_TRAPS_PER_SLICE = 256
"""The number of traps that end a slice: one takes as long as thousands of guest instructions."""

REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "eflags",
)  # fmt: skip
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in REGISTERS}
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_U64 = (1 << 64) - 1

_SYSTEM_REGISTERS = [
    getattr(x86, f"UC_X86_REG_{name}")
    for name in ("MSR", "CR0", "CR3", "CR4", "CS", "SS", "GS_BASE", "IDTR", "GDTR")
]
_SYSTEM_REGISTER_SIZE = 24  # sizeof(uc_x86_mmr), the largest of them

_MSR_EFER, _EFER = 0xC0000080, 1 << 0 | 1 << 8 | 1 << 10 | 1 << 11  # SCE LME LMA NXE
_MSR_GS_BASE = 0xC0000101
_CR0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1 << 0  # PG WP NE ET MP PE
_TRANSLATED_CODE = 8 << 20
"""The size in bytes of unicorn's translated code at which it drops all of it and starts again. The
translations of unloaded modules stay until then, so this bounds the growth of a daemon (the default
is 1 GiB)."""
_CR4 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 10  # PAE PGE OSFXSR OSXMMEXCPT

VECTORS = {0: "divide error", 1: "debug", 3: "int3", 4: "overflow", 5: "bounds", 6: "invalid opcode",
           8: "double fault", 11: "segment not present", 12: "stack segment",
           13: "general protection fault", 14: "page fault", 17: "alignment check"}  # fmt: skip


class StopReason(enum.Enum):
    """The reason for the end of a slice."""

    EXPIRED = "the time slice is used up"
    TRAP = "guest code reached a trap whose handler returned False"
    EXCEPTION = "the processor raised an exception"
    HALT = "guest code executed a hlt instruction"


class Stop(NamedTuple):
    """The end of a slice.

    ``address`` is that of the trap (TRAP), or the faulting address (EXCEPTION with vector 14).
    """

    reason: StopReason
    address: int = 0
    vector: int = 0


_EXIT_CHECK = re.compile(rb"\x48\x8b\xb7....\x80\xbe(....)\x00", re.DOTALL)
"""The start of unicorn's ``check_exit_request``: ``if (tcg_ctx->uc->no_exit_request) return;``."""
_INSTRUCTIONS_PER_SLICE = 50_000
"""The length of a slice in instructions, if unicorn cannot be stopped between blocks only."""


def _stop_between_blocks_only(uc: Any) -> bool:
    """Make ``emu_stop`` end a slice at the start of a block only. Return whether this is possible.

    By default, generated code also checks for a stop after every memory access, and then goes back
    to the start of the instruction. So an instruction that has stored its result, as
    ``incq counter``, is executed twice. unicorn has a private flag against that, which ARM needs.
    Its place is read from the machine code of the function that tests it.
    """
    function = getattr(uclib, "check_exit_request_x86_64", None)
    if function is None:
        return False
    code = ctypes.string_at(ctypes.cast(function, ctypes.c_void_p).value or 0, 16)
    found = _EXIT_CHECK.match(code)
    if found is None:
        return False
    offset = int.from_bytes(found[1], "little")
    ctypes.c_bool.from_address(uc._uch.value + offset).value = True
    return True


Context = Any
"""The complete, opaque state of the processor for one task."""


_BATCH = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)
_read_batch = _BATCH(("uc_reg_read_batch", uclib))
_write_batch = _BATCH(("uc_reg_write_batch", uclib))


class _Bank:
    """Some 64-bit registers that are read and written in one call of the library.

    A trap spends most of its time on registers. The functions of unicorn's own binding take several
    times as long, among others because they release the interpreter's lock.
    """

    def __init__(self, uc: Any, names: Sequence[str]) -> None:
        count = len(names)
        self._values = (ctypes.c_uint64 * count)()
        at = ctypes.addressof(self._values)
        ids = (ctypes.c_int * count)(*(_IDS[name] for name in names))
        pointers = (ctypes.c_void_p * count)(*(at + 8 * i for i in range(count)))
        self._arrays = ids, pointers  # their addresses are used below
        self._call_arguments = uc._uch.value, ctypes.addressof(ids), ctypes.addressof(pointers)
        self._count = count

    def read(self) -> list[int]:
        """Return the values of the registers."""
        _read_batch(*self._call_arguments, self._count)
        return self._values[:]

    def write(self, values: Sequence[int]) -> None:
        """Set the first ``len(values)`` registers."""
        for i, value in enumerate(values):
            self._values[i] = value & _U64
        _write_batch(*self._call_arguments, len(values))


class _SystemRegisters:
    """The registers that guest code may not change, read in one call of the library."""

    def __init__(self, uc: Any) -> None:
        count = len(_SYSTEM_REGISTERS)
        ids = (ctypes.c_int * count)(*_SYSTEM_REGISTERS)
        self._values = ctypes.create_string_buffer(_SYSTEM_REGISTER_SIZE * count)
        ctypes.c_uint32.from_buffer(self._values).value = _MSR_EFER  # the MSR to read
        at = ctypes.addressof(self._values)
        pointers = (ctypes.c_void_p * count)(
            *(at + _SYSTEM_REGISTER_SIZE * i for i in range(count))
        )
        self._arrays = ids, pointers  # their addresses are used below
        self._call_arguments = (
            uc._uch.value,
            ctypes.addressof(ids),
            ctypes.addressof(pointers),
            count,
        )

    def read(self) -> bytes:
        """Return the values of the registers, to be compared."""
        _read_batch(*self._call_arguments)
        return self._values.raw


class Cpu:
    """One processor on a `Memory`. ``gs_base`` is the offset of its per-CPU area.

    ``slice_seconds`` is the length of a slice in real time. If ``slice_instructions`` is not 0, it
    is the exact length in instructions instead, which is slower and makes a run repeatable.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        gs_base: int = 0,
        slice_seconds: float = 0.001,
        slice_instructions: int = 0,
    ) -> None:
        self._memory = memory
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tcg_buffer_size(_TRANSLATED_CODE)
        self._ram = (ctypes.c_char * memory.size).from_buffer(memory.ram)
        uc.mem_map_ptr(0, memory.size, unicorn.UC_PROT_ALL, ctypes.addressof(self._ram))
        uc.reg_write(x86.UC_X86_REG_CR3, memory.cr3)
        uc.reg_write(x86.UC_X86_REG_CR4, _CR4)
        uc.msr_write(_MSR_EFER, _EFER)
        uc.reg_write(x86.UC_X86_REG_CR0, _CR0)
        uc.msr_write(_MSR_GS_BASE, gs_base)
        uc.reg_write(_IDS["eflags"], 0x202)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._on_in, None, 1, 0, x86.UC_X86_INS_IN)
        for instruction in (x86.UC_X86_INS_SYSCALL, x86.UC_X86_INS_SYSENTER):
            uc.hook_add(unicorn.UC_HOOK_INSN, self._on_syscall, None, 1, 0, instruction)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        memory.flush_tlb = self._flush_tlb
        self._traps: dict[int, Callable[[], bool]] = {}
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        if not slice_instructions and not _stop_between_blocks_only(uc):
            slice_instructions = _INSTRUCTIONS_PER_SLICE
        self._traps_left = 0
        self._instructions = slice_instructions
        self._ticker = Ticker(slice_seconds, uc.emu_stop)
        self._pristine = uc.context_save()
        self._all = _Bank(uc, REGISTERS)
        self._argument_bank = _Bank(uc, _ARGUMENTS)
        self._entry = _Bank(uc, ("rip", *_ARGUMENTS))
        self._trapped: list[int] = []  # the arguments, while a trap is being served
        self._single = {name: _Bank(uc, [name]) for name in REGISTERS}
        self._rip = self._single["rip"]
        self._system = _SystemRegisters(uc)
        self._pristine_system = self._system.read()

    def close(self) -> None:
        """Stop the timer thread."""
        self._ticker.close()

    # -- registers --------------------------------------------------------------------------------

    def __getitem__(self, register: str) -> int:
        return self._single[register].read()[0]

    def __setitem__(self, register: str, value: int) -> None:
        self._single[register].write((value,))

    def registers(self) -> dict[str, int]:
        """Return the general registers, RIP and the flags by name."""
        return dict(zip(REGISTERS, self._all.read(), strict=True))

    def arguments(self, count: int) -> tuple[int, ...]:
        """Return the first ``count`` (at most 6) integer arguments of the function just entered."""
        return tuple((self._trapped or self._argument_bank.read())[:count])

    def set_arguments(self, values: tuple[int, ...]) -> None:
        """Store integer arguments in the registers of the System V calling convention."""
        self._argument_bank.write(values)

    def control_registers(self) -> dict[str, int]:
        """Return CR0, CR2, CR3 and CR4 as ``cr0`` etc."""
        ids = (x86.UC_X86_REG_CR0, x86.UC_X86_REG_CR2, x86.UC_X86_REG_CR3, x86.UC_X86_REG_CR4)
        return {f"cr{n}": self._uc.reg_read(id_) for n, id_ in zip((0, 2, 3, 4), ids, strict=True)}

    @property
    def gs_base(self) -> int:
        """MSR_GS_BASE: the per-CPU area of the kernel."""
        return int(self._uc.msr_read(_MSR_GS_BASE))

    def save(self) -> Context:
        """Return the state of the processor, for `restore`."""
        return self._uc.context_save()

    def initial_context(self) -> Context:
        """Return the state of the processor for a new task."""
        return self._pristine

    def registers_of(self, context: Context) -> dict[str, int]:
        """Return the registers in a saved state by name, as `registers`."""
        return {name: context.reg_read(id_) for name, id_ in _IDS.items()}

    def restore(self, context: Context) -> None:
        """Load a saved state into the processor."""
        self._uc.context_restore(context)

    # -- traps ------------------------------------------------------------------------------------

    def set_trap(self, address: int, handler: Callable[[], bool]) -> None:
        """Call ``handler`` whenever guest code reaches the `TRAP` at ``address``.

        If it returns True, the guest continues. If it returns False, the slice ends with
        StopReason.TRAP, for a service that may have to wait.
        """
        self._traps[address] = handler

    def in_trap(self, rip: int) -> bool:
        """Return whether RIP is inside a trap, whose handler runs or will run."""
        return any(rip - offset in self._traps for offset in _TRAP_STEPS)

    def _on_out(self, uc: Any, _port: int, _size: int, _value: int, _data: Any) -> None:
        address, *self._trapped = self._entry.read()
        handler = self._traps.get(address)
        if handler is None:
            return  # an I/O port without a device
        try:
            if handler():
                self._traps_left -= 1
                if self._traps_left:
                    return
            else:
                self._stop = Stop(StopReason.TRAP, address)
        except BaseException as error:  # it must not unwind through the emulator's C frames
            self._error = error
        finally:
            self._trapped = []
        uc.emu_stop()

    def _on_in(self, _uc: Any, _port: int, _size: int, _data: Any) -> int:
        return 0xFFFFFFFF  # the value of an I/O port without a device

    def _on_syscall(self, uc: Any, _data: Any) -> None:
        self._stop = Stop(StopReason.EXCEPTION, vector=13)  # there is no user space
        uc.emu_stop()

    def _on_interrupt(self, uc: Any, vector: int, _data: Any) -> None:
        address = uc.reg_read(x86.UC_X86_REG_CR2) if vector == 14 else 0
        self._stop = Stop(StopReason.EXCEPTION, address, vector)
        uc.emu_stop()

    # -- running ----------------------------------------------------------------------------------

    def run(self) -> Stop:
        """Run guest code from RIP on, for at most one slice.

        Exceptions of a trap's handler are passed on. After an exception of the processor, the
        registers are those at the faulting instruction (for int3, behind it), and `run` can be
        called again.
        """
        uc = self._uc
        self._stop = None
        self._traps_left = _TRAPS_PER_SLICE
        rip = self._rip.read()[0]
        try:
            if self._instructions:
                uc.emu_start(rip, 0, count=self._instructions)
            else:
                self._ticker.start_slice()
                try:
                    uc.emu_start(rip, 0)
                finally:
                    self._ticker.end_slice()
        except unicorn.UcError as error:
            self._stop = self._as_exception(error)
        if self._error is not None:
            error_in_trap, self._error = self._error, None
            raise error_in_trap
        stop = self._stop
        if self._system.read() != self._pristine_system:
            stop = Stop(StopReason.EXCEPTION, vector=13)
        if stop is None:
            return self._halted_or_expired()
        if stop.reason is StopReason.EXCEPTION:
            self._forget_exception()
        return stop

    def _as_exception(self, error: unicorn.UcError) -> Stop:
        if self._stop is not None and self._stop.reason is StopReason.EXCEPTION:
            return self._stop
        if error.errno == unicorn.UC_ERR_INSN_INVALID:
            return Stop(StopReason.EXCEPTION, vector=6)
        return Stop(StopReason.EXCEPTION, self["rip"], 13)

    def _halted_or_expired(self) -> Stop:
        rip = self["rip"]
        try:
            halted = self._memory.read(rip - 1, 1) == b"\xf4"
        except PageFault:
            halted = False
        return Stop(StopReason.HALT if halted else StopReason.EXPIRED)

    def _forget_exception(self) -> None:
        """Replace the state of unicorn, which would take the next exception for a double fault.

        This also restores the system registers.
        """
        registers = self._all.read()
        self._uc.context_restore(self._pristine)
        self._all.write(registers)

    def _flush_tlb(self) -> None:
        self._uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    def code_changed(self, address: int, size: int) -> None:
        """Drop translations of ``[address, address + size)``; needed after any change of text.

        Only executable pages have translations. unicorn looks a page up as an instruction fetch does, and
        for a page without execute permission that leaves an exception behind, which takes away the next
        stop of a trap.
        """
        end = address + size
        while address < end:
            page_end = min((address & -PAGE_SIZE) + PAGE_SIZE, end)
            entry = self._memory.entry(address)
            if entry and not entry & NX:
                self._uc.ctl_remove_cache(address, page_end)
            address = page_end
