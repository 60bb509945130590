# SPDX-License-Identifier: GPL-2.0-or-later
"""ORC tables and the ORC unwinder.

For every address in a kernel's text, the tables tell how to find the frame of the caller. Their
format is in arch/x86/include/asm/orc_types.h, the unwinder in arch/x86/kernel/unwind_orc.c. The
format has changed over time; the image's own ``struct orc_entry`` tells which one it has:

    to 6.2      sp_reg:4 bp_reg:4 type:2 end:1          type 0 a call; sp_reg 0: the end, or unknown
    6.3         sp_reg:4 bp_reg:4 type:2 signal:1 end:1
    from 6.4    sp_reg:4 bp_reg:4 type:3 signal:1       type 0 unknown, 1 the end, 2 a call
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
    """ORC_REG_*: the base of an offset."""

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
    """ORC_TYPE_*: the data on the stack below the caller's frame."""

    UNDEFINED = 0
    END_OF_STACK = 1
    CALL = 2
    REGS = 3
    REGS_PARTIAL = 4


class OrcEntry(NamedTuple):
    """The state of the stack at a range of addresses. Offsets are in bytes.

    ``signal`` is true if the caller's address is that of an instruction that has not run yet,
    false if it is that behind a call.
    """

    kind: int
    sp_reg: int = Register.UNDEFINED
    sp_offset: int = 0
    bp_reg: int = Register.UNDEFINED
    bp_offset: int = 0
    signal: bool = False


_NULL_ENTRY = OrcEntry(Kind.CALL, Register.SP, 8)
"""The entry of address 0, for calls of a null pointer."""
_FRAME_POINTER_ENTRY = OrcEntry(Kind.CALL, Register.BP, 16, Register.PREV_SP, -16)
"""The entry assumed for generated code, which has no tables."""


class Format:
    """The format of a kernel's entries. Raise LookupError if it has no ``struct orc_entry``."""

    def __init__(self, types: Types) -> None:
        entry = types["struct orc_entry"]
        self.size = entry.size
        self._fields = {
            name: (member.bit_offset, member.bit_size or member.type.size * 8)
            for name, member in entry.fields.items()
        }

    def decode(self, data: bytes) -> OrcEntry:
        """Decode one entry of ``size`` bytes."""
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
    """The ORC tables of the kernel or of a module, in the order of their addresses.

    ``ips`` is the content of ``__start_orc_unwind_ip`` or .orc_unwind_ip, at address ``base``;
    each is relative to its own address. ``entries`` is the content of ``__start_orc_unwind`` or
    .orc_unwind. Raise ValueError if the two differ in length.
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
        """Return the first address of an entry."""
        place = index * _IP.size
        offset: int = _IP.unpack_from(self._ips, place)[0]
        return (self._base + place + offset) & _U64

    def entry(self, index: int) -> OrcEntry:
        """Return an entry by its index."""
        size = self._format.size
        return self._format.decode(self._entries[index * size : (index + 1) * size])

    def find(self, ip: int) -> OrcEntry | None:
        """Return the last entry that begins at ``ip`` or before it (``__orc_find``).

        Return the first entry if all begin later, and None if the table is empty.
        """
        if not self._count:
            return None
        return self.entry(max(bisect_right(range(self._count), ip, key=self.ip) - 1, 0))

    def sorted(self) -> OrcTable:
        """Return the tables sorted by address, as ``unwind_module_init`` does for a module.

        Among entries of one address, those of type UNDEFINED come first, so that `find` returns
        another.
        """
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
        """The content of the two tables in memory."""
        return self._ips, self._entries


# -- unwinding ------------------------------------------------------------------------------------

_PT_REGS = {
    Register.R13: 16, Register.BP: 32, Register.R10: 56, Register.DX: 96, Register.DI: 112,
}  # fmt: skip
"""Offsets in struct pt_regs, in bytes."""
_PT_REGS_IP, _PT_REGS_CS, _PT_REGS_SP, _PT_REGS_SIZE = 128, 136, 152, 168
_IRET_FRAME_OFFSET, _IRET_FRAME_SIZE = 128, 40


class Frame(NamedTuple):
    """A function on a stack: its instruction pointer and registers.

    ``place`` is the address of the word on the stack that holds ``ip``, None if there is none.
    ``regs`` is the address of the struct pt_regs that the frame was read from, or None.
    """

    ip: int
    sp: int
    bp: int
    signal: bool = False
    place: int | None = None
    regs: int | None = None


class Trace(NamedTuple):
    """The frames of a stack, innermost first. ``reliable`` is true if none can be missing."""

    frames: list[Frame]
    reliable: bool


class _UnwindError(Exception):
    """The stack does not match the tables."""


class _Unwinder:
    """``struct unwind_state``, without the members that are in `Frame`."""

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
        """The address of the last complete struct pt_regs; a partial one is just an iret frame."""
        self.error = False

    def next(self, frame: Frame) -> Frame | None:
        """Return the frame of the caller, or None at the end (``unwind_next_frame``).

        Raise _UnwindError.
        """
        if frame.regs is not None and self._read_u64(frame.regs + _PT_REGS_CS) & 3:
            return None  # it came from user space
        # The instruction behind a call may have another entry, or belong to another function.
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
        """Return the stack pointer before the call, or the address of the saved registers."""
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
    """Walk a stack (``arch_stack_walk``, ``arch_stack_walk_reliable``).

    ``find`` returns the entry of an address, or None. ``read_u64`` reads the stack, whose addresses
    are ``stack``. ``is_text`` is ``__kernel_text_address``. ``start`` is the innermost frame; its
    ``signal`` is true for registers between two instructions, false for those of a call that has
    not returned; its ``regs`` is the address of a struct pt_regs with the other registers, or None.

    An unreliable trace has the frames up to the first one that cannot be found.
    """
    unwinder = _Unwinder(find, read_u64, stack, start.regs)
    frames: list[Frame] = []
    frame: Frame | None = start
    # The limit matters only if the tables are wrong and the stack pointer leaves the stack.
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
