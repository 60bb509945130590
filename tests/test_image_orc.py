# SPDX-License-Identifier: GPL-2.0-or-later
"""ORC tables, and stack traces with them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klpfs.machine.btf import Types
from klpfs.machine.image.orc import Format, Frame, Kind, OrcEntry, OrcTable, Register, unwind

BASE = 0xFFFFFFFF82C00000
TEXT = 0xFFFFFFFF81000000


class Bits(NamedTuple):
    """The fields behind the registers in an entry, with their sizes in bits."""

    linux: str
    members: dict[str, int]


FORMATS = [
    Bits("6.1", {"type": 2, "end": 1}),
    Bits("6.3", {"type": 2, "signal": 1, "end": 1}),
    Bits("6.4", {"type": 3, "signal": 1}),
]
formats = pytest.mark.parametrize("bits", FORMATS, ids=[bits.linux for bits in FORMATS])


def types(bits: Bits) -> Types:
    """Return types with ``struct orc_entry``, which is packed to 6 bytes."""
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    members = [("sp_offset", 1, 0, 0), ("bp_offset", 1, 16, 0)]
    at = 32
    for name, size in {"sp_reg": 4, "bp_reg": 4, **bits.members}.items():
        members.append((name, 2, at, size))
        at += size
    blob = struct.pack("<IIII", string("short int"), 1 << 24, 2, 1 << 24 | 16)
    blob += struct.pack("<IIII", string("unsigned int"), 1 << 24, 4, 32)
    blob += struct.pack("<III", string("orc_entry"), 1 << 31 | 4 << 24 | len(members), 6)
    for name, type_id, offset, size in members:
        blob += struct.pack("<III", string(name), type_id, size << 24 | offset)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(blob), len(blob), len(strings))
    return Types(header + blob + bytes(strings))


def encode(entry: OrcEntry, bits: Bits) -> bytes:
    """Encode an entry, as objtool does."""
    old = "end" in bits.members
    values = {
        "type": max(entry.kind - Kind.CALL, 0) if old else entry.kind,
        "end": entry.kind == Kind.END_OF_STACK,
        "signal": entry.signal,
    }
    raw, at = entry.sp_reg | entry.bp_reg << 4, 8
    for name, size in bits.members.items():
        raw |= values[name] << at
        at += size
    return struct.pack("<hhH", entry.sp_offset, entry.bp_offset, raw)


def table(
    entries: list[tuple[int, OrcEntry]], bits: Bits = FORMATS[0], base: int = BASE
) -> OrcTable:
    ips = b"".join(struct.pack("<i", ip - base - 4 * i) for i, (ip, _) in enumerate(entries))
    return OrcTable(Format(types(bits)), ips, base, b"".join(encode(e, bits) for _, e in entries))


CALL = OrcEntry(Kind.CALL, Register.SP, 8)
PUSHED = OrcEntry(Kind.CALL, Register.SP, 16, Register.PREV_SP, -16)
FRAMED = OrcEntry(Kind.CALL, Register.BP, 16, Register.PREV_SP, -16)
REGS = OrcEntry(Kind.REGS, Register.SP, 0, signal=True)
IRET = OrcEntry(Kind.REGS_PARTIAL, Register.SP, 8, signal=True)
END = OrcEntry(Kind.END_OF_STACK)
UNKNOWN = OrcEntry(Kind.UNDEFINED)


# -- tables ---------------------------------------------------------------------------------------


@formats
@pytest.mark.parametrize("entry", [CALL, PUSHED, FRAMED, REGS, IRET, END, UNKNOWN])
def test_every_format(bits: Bits, entry: OrcEntry) -> None:
    assert table([(TEXT, entry)], bits).find(TEXT) == entry


@pytest.mark.parametrize("bits", FORMATS[1:], ids=["6.3", "6.4"])
def test_a_call_frame_may_be_a_signal_frame(bits: Bits) -> None:
    """From 6.3 on, that of ``ret_from_fork`` is, as it is entered by a jump."""
    entry = CALL._replace(signal=True)
    assert table([(TEXT, entry)], bits).find(TEXT) == entry


@formats
@given(st.integers(-(1 << 15), (1 << 15) - 1), st.integers(-(1 << 15), (1 << 15) - 1))
def test_offsets_are_signed(bits: Bits, sp_offset: int, bp_offset: int) -> None:
    entry = OrcEntry(Kind.CALL, Register.R13, sp_offset, Register.BP, bp_offset)
    assert table([(TEXT, entry)], bits).find(TEXT) == entry


def numbered(number: int) -> OrcEntry:
    return OrcEntry(Kind.CALL, Register.SP, number)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(-5, 60))
def test_the_last_entry_at_or_before_an_address(offsets: list[int], wanted: int) -> None:
    offsets.sort()
    found = table([(TEXT + o, numbered(i)) for i, o in enumerate(offsets)]).find(TEXT + wanted)
    before = [i for i, offset in enumerate(offsets) if offset <= wanted]
    assert found == numbered(before[-1] if before else 0)


def test_a_table_may_be_empty() -> None:
    assert table([]).find(TEXT) is None
    assert len(table([])) == 0


def test_tables_of_different_lengths_are_refused() -> None:
    for ips, entries in ((bytes(4), bytes(12)), (bytes(5), bytes(6)), (b"", bytes(6))):
        with pytest.raises(ValueError, match="different lengths"):
            OrcTable(Format(types(FORMATS[0])), ips, BASE, entries)


@formats
@given(offsets=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=20))
def test_a_modules_tables_get_sorted(bits: Bits, offsets: list[tuple[int, bool]]) -> None:
    """If an address has two entries, the one that is not UNDEFINED is found."""
    entries = [
        (TEXT + offset, numbered(i) if known else UNKNOWN)
        for i, (offset, known) in enumerate(offsets)
    ]
    base = 0xFFFFFFFFC0123000
    ordered = table(entries, bits, base).sorted()
    expected = sorted(entries, key=lambda item: (item[0], item[1] != UNKNOWN))
    assert [(ordered.ip(i), ordered.entry(i)) for i in range(len(ordered))] == expected
    assert OrcTable(Format(types(bits)), ordered.data[0], base, ordered.data[1]).sorted().data == (
        ordered.data
    )


# -- walking --------------------------------------------------------------------------------------

STACK = range(0xFFFFC90000000000, 0xFFFFC90000004000)


class Stack:
    """A stack that grows down from its top."""

    def __init__(self) -> None:
        self.sp = STACK.stop
        self.words: dict[int, int] = {}

    def push(self, *values: int) -> int:
        for value in values:
            self.sp -= 8
            self.words[self.sp] = value
        return self.sp

    def push_regs(self, **registers: int) -> int:
        """Push a struct pt_regs; return its address."""
        names = "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss"
        return self.push(*(registers.get(name, 0) for name in reversed(names.split())))


OUTER, MIDDLE, INNER, ENTRY = (TEXT + 0x100 * i for i in range(1, 5))


def finder(**entries: OrcEntry) -> Callable[[int], OrcEntry | None]:
    """Return a find function with one entry for each function."""
    functions = {globals()[name.upper()] & ~0xFF: entry for name, entry in entries.items()}
    return lambda ip: functions.get(ip & ~0xFF)


def is_text(address: int) -> bool:
    return TEXT <= address < TEXT + 0x1000


def test_calls() -> None:
    """``inner`` sleeps, ``middle`` saves rbp, ``outer`` is the first function of the task."""
    stack = Stack()
    stack.push(0)
    middle_return = stack.push(OUTER + 5)
    stack.push(0xB0)  # outer's rbp
    inner_return = stack.push(MIDDLE + 5)
    find = finder(inner=CALL, middle=PUSHED, outer=END)
    trace = unwind(
        find, stack.words.__getitem__, is_text, Frame(INNER, stack.sp, 0xB1, True), STACK
    )
    assert trace.reliable
    assert [frame.ip for frame in trace.frames] == [INNER, MIDDLE + 5, OUTER + 5]
    assert [frame.place for frame in trace.frames] == [None, inner_return, middle_return]
    assert [frame.bp for frame in trace.frames] == [0xB1, 0xB1, 0xB0]
    assert trace.frames[2].sp == STACK.stop - 8


def test_the_return_address_is_looked_up_in_the_call_before_it() -> None:
    """A call that never returns may be the last instruction of a function."""
    stack = Stack()
    stack.push(0, MIDDLE)  # behind the end of outer
    find = finder(inner=CALL, outer=END)
    ends_in_outer = OUTER | 0xFF
    assert ends_in_outer + 1 == MIDDLE
    trace = unwind(find, stack.words.__getitem__, is_text, Frame(INNER, stack.sp, 0, True), STACK)
    assert trace.reliable


def test_an_interrupt() -> None:
    """``middle`` was interrupted at its first instruction, whose entry must be used."""
    stack = Stack()
    stack.push(0, OUTER + 5)
    interrupted = stack.sp
    regs = stack.push_regs(ip=MIDDLE, sp=interrupted, bp=0xB2, cs=0x10)
    stack.push(ENTRY + 9)
    find = finder(inner=CALL, entry=REGS, middle=CALL, outer=END)
    trace = unwind(
        find, stack.words.__getitem__, is_text, Frame(INNER, stack.sp, 0xB1, True), STACK
    )
    assert trace.reliable
    assert [frame.ip for frame in trace.frames] == [INNER, ENTRY + 9, MIDDLE, OUTER + 5]
    assert [frame.regs for frame in trace.frames] == [None, None, regs, None]
    assert [frame.bp for frame in trace.frames] == [0xB1, 0xB1, 0xB2, 0xB2]


def test_an_interrupt_of_user_space_is_the_end() -> None:
    stack = Stack()
    stack.push_regs(ip=0x401000, sp=0x7FFF0000, cs=0x33)
    stack.push(ENTRY + 9)
    find = finder(inner=CALL, entry=REGS)
    is_user_or_text = lambda address: address == 0x401000 or is_text(address)  # noqa: E731
    trace = unwind(
        find, stack.words.__getitem__, is_user_or_text, Frame(INNER, stack.sp, 0, True), STACK
    )
    assert trace.reliable
    assert trace.frames[-1].ip == 0x401000


def test_registers_that_only_iret_takes() -> None:
    """Entry code that has not saved the other registers: rbp is unchanged."""
    stack = Stack()
    stack.push(0, OUTER + 5)
    interrupted = stack.sp
    stack.push(0x18, interrupted, 0x246, 0x10, MIDDLE)  # ss sp flags cs ip
    stack.push(0)  # the error code
    find = finder(entry=IRET, middle=CALL, outer=END)
    trace = unwind(
        find, stack.words.__getitem__, is_text, Frame(ENTRY, stack.sp, 0xB1, True), STACK
    )
    assert trace.reliable
    assert [(frame.ip, frame.bp) for frame in trace.frames] == [
        (ENTRY, 0xB1), (MIDDLE, 0xB1), (OUTER + 5, 0xB1),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["R10", "R13", "DI", "DX"])
def test_a_realigned_stack(name: str) -> None:
    """gcc keeps the caller's stack pointer in another register, which is known only if it was saved."""
    stack = Stack()
    stack.push(0, OUTER + 5)
    caller = stack.sp + 8
    regs = stack.push_regs(ip=MIDDLE, sp=stack.sp - 64, cs=0x10, **{name.lower(): caller})
    find = finder(middle=OrcEntry(Kind.CALL, Register[name]), outer=END)
    start = Frame(MIDDLE, stack.sp, 0, True, None, regs)
    trace = unwind(find, stack.words.__getitem__, is_text, start, STACK)
    assert trace.reliable
    assert [frame.ip for frame in trace.frames] == [MIDDLE, OUTER + 5]
    without = unwind(find, stack.words.__getitem__, is_text, start._replace(regs=None), STACK)
    assert not without.reliable
    assert [frame.ip for frame in without.frames] == [MIDDLE]


def test_indirect_registers() -> None:
    """The caller's stack pointer is on the stack, at rsp or rbp."""
    for register, offset in ((Register.SP_INDIRECT, 8), (Register.BP_INDIRECT, -8)):
        stack = Stack()
        stack.push(0, OUTER + 5)
        sp = stack.sp
        if register == Register.SP_INDIRECT:
            start = Frame(MIDDLE, stack.push(sp), 0, True)  # *rsp + 8
        else:
            start = Frame(MIDDLE, stack.push(sp + 8), stack.sp + 8, True)  # *(rbp - 8)
        find = finder(middle=OrcEntry(Kind.CALL, register, offset), outer=END)
        trace = unwind(find, stack.words.__getitem__, is_text, start, STACK)
        assert trace.reliable
        assert [frame.ip for frame in trace.frames] == [MIDDLE, OUTER + 5]


def test_code_without_entries_is_guessed_to_have_a_frame_pointer() -> None:
    stack = Stack()
    stack.push(0, OUTER + 5)
    frame = stack.push(0xB0)
    stack.push(0x1234)
    trace = unwind(
        finder(outer=END),
        stack.words.__getitem__,
        is_text,
        Frame(INNER, stack.sp, frame, True),
        STACK,
    )
    assert [f.ip for f in trace.frames] == [INNER, OUTER + 5]
    assert trace.frames[1].bp == 0xB0
    assert not trace.reliable


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (UNKNOWN, [OUTER]),
        (OrcEntry(Kind.CALL, Register.PREV_SP, 8), [OUTER]),  # a register that cannot be a base
        (CALL._replace(bp_reg=Register.SP), [OUTER]),
        (CALL._replace(kind=7), [OUTER]),
        (CALL._replace(sp_offset=0), [OUTER]),  # not above the frame before
        (CALL._replace(sp_offset=-64), [OUTER]),
        (CALL._replace(sp_offset=0x5000), [OUTER]),  # outside of the stack
        (CALL, [0x1234]),  # not text
        (CALL, [0]),
        (REGS, [OUTER]),  # not enough stack left for registers
        (IRET, [OUTER]),
    ],
)
def test_what_is_not_reliable(inner: OrcEntry, words: list[int]) -> None:
    stack = Stack()
    stack.push(*words)
    trace = unwind(
        finder(inner=inner, outer=END),
        lambda address: stack.words.get(address, 0),
        is_text,
        Frame(INNER, stack.sp, 0, True),
        STACK,
    )
    assert not trace.reliable
    assert [frame.ip for frame in trace.frames] == [INNER]


def test_a_null_pointer_was_called() -> None:
    stack = Stack()
    stack.push(0, OUTER + 5)
    trace = unwind(
        finder(outer=END), stack.words.__getitem__, is_text, Frame(0, stack.sp, 0, True), STACK
    )
    assert [frame.ip for frame in trace.frames] == [0, OUTER + 5]


entries = st.builds(
    OrcEntry, st.integers(0, 5), st.integers(0, 10), st.integers(-64, 64),
    st.integers(0, 6), st.integers(-64, 64), st.booleans(),
)  # fmt: skip


@given(
    st.lists(entries | st.none(), min_size=1, max_size=8),
    st.lists(
        st.integers(0, 0xFFF).map(lambda o: TEXT + o) | st.sampled_from(STACK[::64]), min_size=1
    ),
    st.sampled_from(STACK[::8]),
)
def test_it_ends_whatever_the_tables_say(
    which: list[OrcEntry | None], words: list[int], sp: int
) -> None:
    trace = unwind(
        lambda ip: which[ip % len(which)],
        lambda address: words[address // 8 % len(words)],
        is_text,
        Frame(INNER, sp, sp, True),
        STACK,
    )
    assert trace.frames[0].ip == INNER
