# SPDX-License-Identifier: GPL-2.0-or-later
"""ORC: where the caller's frame is, for every address in a kernel's text.

arch/x86/include/asm/orc_types.h says what the tables hold, arch/x86/kernel/unwind_orc.c how a stack is walked
with them. The entries have changed over time; the image's own ``struct orc_entry`` says which they are:

    to 6.2      sp_reg:4 bp_reg:4 type:2 end:1             type 0 is a call; no sp_reg: the end, or unknown
    6.3         sp_reg:4 bp_reg:4 type:2 signal:1 end:1
    from 6.4    sp_reg:4 bp_reg:4 type:3 signal:1          type 0 is unknown, 1 the end, 2 a call
"""

from __future__ import annotations

import enum
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from klpfs.machine.btf import Types

_IP = struct.Struct("<i")
_U64 = (1 << 64) - 1


class Register(enum.IntEnum):
    """ORC_REG_*: what an offset is added to."""

    UNDEFINED = 0
    PREV_SP = 1
    DX = 2
    DI = 3
    BP = 4
    SP = 5
    R10 = 6
    R13 = 7
    BP_INDIRECT = 8
    SP_INDIRECT = 9


class Kind(enum.IntEnum):
    """ORC_TYPE_*: what is found on the stack below the caller's frame."""

    UNDEFINED = 0
    END_OF_STACK = 1
    CALL = 2
    REGS = 3
    REGS_PARTIAL = 4


class OrcEntry(NamedTuple):
    """The state of the stack at some addresses, offsets in bytes. ``signal``: the caller's address is that
    of an instruction to come, not of one behind a call."""

    kind: int
    sp_reg: int = Register.UNDEFINED
    sp_offset: int = 0
    bp_reg: int = Register.UNDEFINED
    bp_offset: int = 0
    signal: bool = False


_NULL_ENTRY = OrcEntry(Kind.CALL, Register.SP, 8)
"""For address 0: somebody called a null pointer."""
_FRAME_POINTER_ENTRY = OrcEntry(Kind.CALL, Register.BP, 16, Register.PREV_SP, -16)
"""For generated code, of which nothing is known: a guess."""


class Format:
    """How a kernel stores entries. Raises KeyError if its types do not include ``struct orc_entry``."""

    def __init__(self, types: Types) -> None:
        entry = types["struct orc_entry"]
        self.size = entry.size
        self._fields = {
            name: (member.bit_offset, member.bit_size or member.type.size * 8)
            for name, member in entry.fields.items()
        }

    def decode(self, data: bytes) -> OrcEntry:
        """The entry in ``size`` bytes."""
        raw = int.from_bytes(data, "little")
        value = {
            name: raw >> shift & (1 << bits) - 1 for name, (shift, bits) in self._fields.items()
        }
        kind = value["type"]
        signal = bool(value.get("signal", kind != 0))
        if "end" in value:
            kind += Kind.CALL
            if value["sp_reg"] == Register.UNDEFINED:
                kind = Kind.END_OF_STACK if value["end"] else Kind.UNDEFINED
        return OrcEntry(
            kind,
            value["sp_reg"],
            _signed(value["sp_offset"]),
            value["bp_reg"],
            _signed(value["bp_offset"]),
            signal,
        )


def _signed(value: int) -> int:
    return (value ^ 0x8000) - 0x8000


class OrcTable:
    """The tables of the kernel (``__start_orc_unwind_ip``, ``__start_orc_unwind``) or of a module
    (.orc_unwind_ip, .orc_unwind), in the order of their addresses.

    ``ips`` is loaded at address ``base``: each is relative to its own place. Raises ValueError if the two
    are not of one length.
    """

    def __init__(self, format: Format, ips: bytes, base: int, entries: bytes) -> None:
        self._format = format
        self._ips = ips
        self._base = base
        self._entries = entries
        self._count, rest = divmod(len(ips), _IP.size)
        if rest or self._count * format.size != len(entries):
            raise ValueError("ORC tables are of different lengths")

    def __len__(self) -> int:
        return self._count

    def ip(self, index: int) -> int:
        """The first address of an entry."""
        place = index * _IP.size
        offset: int = _IP.unpack_from(self._ips, place)[0]
        return (self._base + place + offset) & _U64

    def entry(self, index: int) -> OrcEntry:
        """An entry, by its place in the table."""
        size = self._format.size
        return self._format.decode(self._entries[index * size : (index + 1) * size])

    def find(self, ip: int) -> OrcEntry | None:
        """The last entry that begins at ``ip`` or before it, as ``__orc_find``; the first if none does,
        and None from a table without any."""
        if not self._count:
            return None
        return self.entry(max(bisect_right(range(self._count), ip, key=self.ip) - 1, 0))

    def sorted(self) -> OrcTable:
        """The same tables in order, as the kernel sorts a module's (``unwind_module_init``). Of entries at
        one address, those that only say that nothing is known come first, so that others are found."""
        order = sorted(
            range(self._count),
            key=lambda i: (self.ip(i), self.entry(i).kind != Kind.UNDEFINED),
        )
        ips = b"".join(
            _IP.pack(self.ip(old) - self._base - new * _IP.size) for new, old in enumerate(order)
        )
        size = self._format.size
        entries = b"".join([self._entries[i * size : (i + 1) * size] for i in order])
        return OrcTable(self._format, ips, self._base, entries)

    @property
    def data(self) -> tuple[bytes, bytes]:
        """The two tables, as they lie in memory at their addresses."""
        return self._ips, self._entries


# -- unwinding --------------------------------------------------------------------------------------

_PT_REGS = {
    Register.R13: 16, Register.BP: 32, Register.R10: 56, Register.DX: 96, Register.DI: 112,
}  # fmt: skip
"""Offsets in struct pt_regs, in bytes."""
_PT_REGS_IP, _PT_REGS_CS, _PT_REGS_SP, _PT_REGS_SIZE = 128, 136, 152, 168
_IRET_FRAME_OFFSET, _IRET_FRAME_SIZE = 128, 40


class Frame(NamedTuple):
    """One function on a stack: where it is, and its registers. ``place`` is the address of the word on the
    stack that holds ``ip``, None if it is in no such place. ``regs`` is where the struct pt_regs is that this
    comes from, if from one."""

    ip: int
    sp: int
    bp: int
    signal: bool = False
    place: int | None = None
    regs: int | None = None


class Trace(NamedTuple):
    """Frames, innermost first. ``reliable``: these are all there are, for certain."""

    frames: list[Frame]
    reliable: bool


class _UnwindError(Exception):
    """The stack does not look as it should."""


class _Unwinder:
    """``struct unwind_state``, but for what is in the frame itself."""

    def __init__(
        self,
        find: Callable[[int], OrcEntry | None],
        read_u64: Callable[[int], int],
        stack: range,
        regs: int | None,
    ) -> None:
        self._find = find
        self._read_u64 = read_u64
        self._stack = stack
        self._full_regs = regs
        """Where the last complete registers are; of a partial one only what iret takes is there."""
        self.error = False

    def next(self, frame: Frame) -> Frame | None:
        """The caller's frame, as ``unwind_next_frame``; None at the end. Raises _UnwindError."""
        if frame.regs is not None and self._read_u64(frame.regs + _PT_REGS_CS) & 3:
            return None  # it came from user space
        # The instruction behind a call may have another layout, or belong to another function.
        at = frame.ip - (not frame.signal)
        entry = _NULL_ENTRY if at == 0 else self._find(at)
        if entry is None:
            entry, self.error = _FRAME_POINTER_ENTRY, True
        if entry.kind == Kind.END_OF_STACK:
            return None
        sp = self._previous_sp(entry, frame)
        if entry.kind == Kind.CALL:
            caller = Frame(self._word(sp - 8), sp, 0, entry.signal, sp - 8)
            self._full_regs = None
        elif entry.kind == Kind.REGS:
            caller = self._from_regs(sp, sp, _PT_REGS_SIZE)
            self._full_regs = sp
        elif entry.kind == Kind.REGS_PARTIAL:
            caller = self._from_regs(sp - _IRET_FRAME_OFFSET, sp, _IRET_FRAME_SIZE)
        else:
            raise _UnwindError(f"unknown .orc_unwind entry type {entry.kind}")
        caller = caller._replace(bp=self._bp(entry, frame, sp), signal=entry.signal)
        if self._holds(caller.sp, 8) and caller.sp <= frame.sp:
            raise _UnwindError("stack going in the wrong direction?")
        return caller

    def _holds(self, address: int, size: int) -> bool:
        return self._stack.start <= address and address + size <= self._stack.stop

    def _word(self, address: int) -> int:
        if not self._holds(address, 8):
            raise _UnwindError(f"{address:#x} is not on the stack")
        return self._read_u64(address)

    def _register(self, register: int) -> int:
        if self._full_regs is None:
            raise _UnwindError(f"missing {Register(register).name}")
        return self._read_u64(self._full_regs + _PT_REGS[Register(register)])

    def _previous_sp(self, entry: OrcEntry, frame: Frame) -> int:
        """The stack pointer before the call, or where registers were saved."""
        match entry.sp_reg:
            case Register.SP:
                return frame.sp + entry.sp_offset & _U64
            case Register.BP:
                return frame.bp + entry.sp_offset & _U64
            case Register.SP_INDIRECT:
                return self._word(frame.sp) + entry.sp_offset & _U64
            case Register.BP_INDIRECT:
                return self._word(frame.bp + entry.sp_offset & _U64)
            case Register.R10 | Register.R13 | Register.DI | Register.DX:
                return self._register(entry.sp_reg)
        raise _UnwindError(f"unknown SP base reg {entry.sp_reg}")

    def _from_regs(self, regs: int, first: int, size: int) -> Frame:
        if not self._holds(first, size):
            raise _UnwindError("can't access registers")
        ip, sp = self._read_u64(regs + _PT_REGS_IP), self._read_u64(regs + _PT_REGS_SP)
        return Frame(ip, sp, 0, True, regs + _PT_REGS_IP, regs)

    def _bp(self, entry: OrcEntry, frame: Frame, sp: int) -> int:
        match entry.bp_reg:
            case Register.UNDEFINED:
                if self._full_regs is not None:
                    return self._read_u64(self._full_regs + _PT_REGS[Register.BP])
                return frame.bp
            case Register.PREV_SP:
                return self._word(sp + entry.bp_offset & _U64)
            case Register.BP:
                return self._word(frame.bp + entry.bp_offset & _U64)
        raise _UnwindError(f"unknown BP base reg {entry.bp_reg}")


def unwind(
    find: Callable[[int], OrcEntry | None],
    read_u64: Callable[[int], int],
    is_text: Callable[[int], bool],
    start: Frame,
    stack: range,
) -> Trace:
    """Walk a stack, as ``arch_stack_walk`` and ``arch_stack_walk_reliable`` do.

    ``find`` has the entry of an address, or None; ``read_u64`` reads the stack, whose addresses are
    ``stack``; ``is_text`` says whether an address is in code (``__kernel_text_address``). ``start`` is where
    to begin: its ``signal`` is true for registers taken between two instructions, false for those of a call
    that has not come back; its ``regs`` is where the rest of them is, in a struct pt_regs, if anywhere.
    An unreliable trace goes on as far as can be guessed.
    """
    unwinder = _Unwinder(find, read_u64, stack, start.regs)
    frames: list[Frame] = []
    frame: Frame | None = start
    # Each frame is further up, unless the tables are wrong and the stack pointer leaves the stack.
    for _ in range(len(stack) // 8 + 1):
        if frame is None:
            return Trace(frames, not unwinder.error)
        if not is_text(frame.ip) and frame is not start:
            break
        frames.append(frame)
        try:
            frame = unwinder.next(frame)
        except _UnwindError:
            break
    return Trace(frames, False)
