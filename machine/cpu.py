# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor: unicorn in 64-bit mode with real page tables.

Guest code runs in ring 0, where nothing keeps it from the registers that hold the machine together.
What it does to those lasts until the end of the slice: then they are put back, and the task gets a
general protection fault, as from a hypervisor that does not allow it.

The only file that knows unicorn. Guest code runs in slices; a slice ends with a `Stop` that says why.
Python is reached by a *trap*: the bytes ``out imm8, al; jmp .+2; ret``. The jump ends the translated
block, so that a stop asked for in the ``out`` is exact and leaves RIP at the ``ret``.
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
"""A trap into Python; as long as the call to ``__fentry__`` that begins a traceable function."""
_TRAP_RET = len(TRAP) - 1
_TRAP_STEPS = (0, 2, _TRAP_RET)  # its instructions
_TRAPS_PER_SLICE = 256
"""A trap takes Python as long as thousands of instructions take the guest."""

REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "eflags",
)  # fmt: skip
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in REGISTERS}
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_U64 = (1 << 64) - 1

_SYSTEM_IDS = [
    getattr(x86, f"UC_X86_REG_{name}")
    for name in ("MSR", "CR0", "CR3", "CR4", "CS", "SS", "GS_BASE", "IDTR", "GDTR")
]
_SYSTEM_SLOT = 24  # sizeof(uc_x86_mmr), the largest of them

_MSR_EFER, _EFER = 0xC0000080, 1 << 0 | 1 << 8 | 1 << 10 | 1 << 11  # SCE LME LMA NXE
_MSR_GS_BASE = 0xC0000101
_CR0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1 << 0  # PG WP NE ET MP PE
_TRANSLATED_CODE = 8 << 20
"""Bytes of the host's code that unicorn keeps before it starts anew. What it made of a module stays
after that is gone: this is what a daemon grows by as modules come and go (unicorn's own limit: 1 GiB).
"""
_CR4 = 1 << 5 | 1 << 7 | 1 << 9 | 1 << 10  # PAE PGE OSFXSR OSXMMEXCPT

VECTORS = {0: "divide error", 1: "debug", 3: "int3", 4: "overflow", 5: "bounds", 6: "invalid opcode",
           8: "double fault", 11: "segment not present", 12: "stack segment",
           13: "general protection fault", 14: "page fault", 17: "alignment check"}  # fmt: skip


class Why(enum.Enum):
    """Why a slice ended."""

    SLICE = "its time was over"
    TRAP = "it reached a trap that has to wait"
    EXCEPTION = "the processor raised an exception"
    HALT = "a hlt instruction"


class Stop(NamedTuple):
    """The end of a slice.

    ``address`` is that of the trap (TRAP) or the address that faulted (EXCEPTION, vector 14).
    """

    why: Why
    address: int = 0
    vector: int = 0


_EXIT_CHECK = re.compile(rb"\x48\x8b\xb7....\x80\xbe(....)\x00", re.DOTALL)
"""How unicorn's ``check_exit_request`` begins: ``if (tcg_ctx->uc->no_exit_request) return;``."""
_INSTRUCTIONS_PER_SLICE = 50_000
"""For a unicorn that cannot be stopped between blocks only."""


def _stop_between_blocks_only(uc: Any) -> bool:
    """Let ``emu_stop`` end a slice at the beginning of a block, and nowhere else. False: not possible.

    As it is, generated code looks for a stop behind every access to memory too, and then goes back to
    the beginning of the instruction: one that has just stored what it computed, as ``incq counter``,
    is done twice. Inside of unicorn there is a switch for that, which ARM needs; where it is
    shows in the code that reads it.
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
"""Everything the processor holds for one task; opaque."""


_BATCH = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)
_read_batch = _BATCH(("uc_reg_read_batch", uclib))
_write_batch = _BATCH(("uc_reg_write_batch", uclib))


class _Bank:
    """Some 64-bit registers, read and written in one call of the library.

    A trap into Python spends most of its time on registers, and the binding's own functions take
    several times as long: they give up the interpreter's lock for it, among other things.
    """

    def __init__(self, uc: Any, names: Sequence[str]) -> None:
        count = len(names)
        self._values = (ctypes.c_uint64 * count)()
        at = ctypes.addressof(self._values)
        ids = (ctypes.c_int * count)(*(_IDS[name] for name in names))
        pointers = (ctypes.c_void_p * count)(*(at + 8 * i for i in range(count)))
        self._kept = ids, pointers
        self._where = uc._uch.value, ctypes.addressof(ids), ctypes.addressof(pointers)
        self._count = count

    def read(self) -> list[int]:
        _read_batch(*self._where, self._count)
        return self._values[:]

    def write(self, values: Sequence[int]) -> None:
        for i, value in enumerate(values):
            self._values[i] = value & _U64
        _write_batch(*self._where, len(values))


class Cpu:
    """One processor on a `Memory`.

    ``slice_seconds`` bounds a slice in real time; ``slice_instructions``, when given, bounds it by an
    exact number of instructions instead, which is slower and makes a run repeatable.
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
        count = len(_SYSTEM_IDS)
        self._system_ids = (ctypes.c_int * count)(*_SYSTEM_IDS)
        self._system = ctypes.create_string_buffer(_SYSTEM_SLOT * count)
        ctypes.c_uint32.from_buffer(self._system).value = _MSR_EFER  # which MSR it shall be
        at = ctypes.addressof(self._system)
        self._system_pointers = (ctypes.c_void_p * count)(
            *(at + _SYSTEM_SLOT * i for i in range(count))
        )
        self._system_where = (
            uc._uch.value,
            ctypes.addressof(self._system_ids),
            ctypes.addressof(self._system_pointers),
        )
        self._pristine_system = self._read_system()

    def close(self) -> None:
        """Stop the timer thread."""
        self._ticker.close()

    # -- registers --------------------------------------------------------------------------------

    def __getitem__(self, register: str) -> int:
        return self._single[register].read()[0]

    def __setitem__(self, register: str, value: int) -> None:
        self._single[register].write((value,))

    def registers(self) -> dict[str, int]:
        """All general registers, RIP and the flags by name."""
        return dict(zip(REGISTERS, self._all.read(), strict=True))

    def arguments(self, count: int) -> tuple[int, ...]:
        """The first ``count`` (at most six) integer arguments of the function just entered."""
        return tuple((self._trapped or self._argument_bank.read())[:count])

    def set_arguments(self, values: tuple[int, ...]) -> None:
        """Put integer arguments where the System V calling convention has them."""
        self._argument_bank.write(values)

    def control_registers(self) -> dict[str, int]:
        """CR0, CR2, CR3 and CR4."""
        ids = (x86.UC_X86_REG_CR0, x86.UC_X86_REG_CR2, x86.UC_X86_REG_CR3, x86.UC_X86_REG_CR4)
        return {f"cr{n}": self._uc.reg_read(id_) for n, id_ in zip((0, 2, 3, 4), ids, strict=True)}

    def save(self) -> Context:
        """The full state of the processor, to be given to `restore`."""
        return self._uc.context_save()

    def fresh(self) -> Context:
        """The state that a new task starts from."""
        return self._pristine

    def registers_of(self, context: Context) -> dict[str, int]:
        """Like `registers`, of a saved state."""
        return {name: context.reg_read(id_) for name, id_ in _IDS.items()}

    def restore(self, context: Context) -> None:
        """Go on with a saved state."""
        self._uc.context_restore(context)

    # -- traps ------------------------------------------------------------------------------------

    def set_trap(self, address: int, handler: Callable[[], bool]) -> None:
        """``handler`` is called when the `TRAP` at ``address`` is reached. True from it lets the
        guest run on; False ends the slice, for a service that may have to wait."""
        self._traps[address] = handler

    def in_trap(self, rip: int) -> bool:
        """Whether RIP stands at a trap that is being served, or that waits."""
        return any(rip - offset in self._traps for offset in _TRAP_STEPS)

    def _on_out(self, uc: Any, _port: int, _size: int, _value: int, _data: Any) -> None:
        address, *self._trapped = self._entry.read()
        handler = self._traps.get(address)
        if handler is None:
            return  # a port with no device behind it
        try:
            if handler():
                self._traps_left -= 1
                if self._traps_left:
                    return
            else:
                self._stop = Stop(Why.TRAP, address)
        except BaseException as error:  # it may not unwind through the emulator's C frames
            self._error = error
        finally:
            self._trapped = []
        uc.emu_stop()

    def _on_in(self, _uc: Any, _port: int, _size: int, _data: Any) -> int:
        return 0xFFFFFFFF  # what floats on a bus with no device

    def _on_syscall(self, uc: Any, _data: Any) -> None:
        self._stop = Stop(Why.EXCEPTION, vector=13)  # there is no user space to come from
        uc.emu_stop()

    def _on_interrupt(self, uc: Any, vector: int, _data: Any) -> None:
        address = uc.reg_read(x86.UC_X86_REG_CR2) if vector == 14 else 0
        self._stop = Stop(Why.EXCEPTION, address, vector)
        uc.emu_stop()

    # -- running ----------------------------------------------------------------------------------

    def run(self) -> Stop:
        """Run guest code from RIP on, for at most a slice.

        Raises what a trap's handler raised. After an exception the registers are those at the
        faulting instruction (for int3: behind it), and the processor can run on.
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
        if self._read_system() != self._pristine_system:
            stop = Stop(Why.EXCEPTION, vector=13)
        if stop is None:
            return self._halted_or_over()
        if stop.why is Why.EXCEPTION:
            self._forget_exception()
        return stop

    def _read_system(self) -> bytes:
        _read_batch(*self._system_where, len(_SYSTEM_IDS))
        return self._system.raw

    def _as_exception(self, error: unicorn.UcError) -> Stop:
        if self._stop is not None and self._stop.why is Why.EXCEPTION:
            return self._stop
        if error.errno == unicorn.UC_ERR_INSN_INVALID:
            return Stop(Why.EXCEPTION, vector=6)
        return Stop(Why.EXCEPTION, self["rip"], 13)

    def _halted_or_over(self) -> Stop:
        rip = self["rip"]
        try:
            halted = self._memory.read(rip - 1, 1) == b"\xf4"
        except PageFault:
            halted = False
        return Stop(Why.HALT if halted else Why.SLICE)

    def _forget_exception(self) -> None:
        """unicorn takes a second exception for a double fault unless its state is replaced. With it
        the system registers are what they were."""
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
