# SPDX-License-Identifier: GPL-2.0-or-later
"""The processor without a kernel: a few bytes of machine code, and real page tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from klpfs.machine.cpu import TRAP, Cpu, Stop, StopReason
from klpfs.machine.memory import PAGE_SIZE, START_KERNEL_MAP, Memory, PageFault

TEXT = START_KERNEL_MAP
DATA = TEXT + 0x10000
STACK = TEXT + 0x20000


class Board:
    """A processor with a page of text, a page of data, and a stack above an unmapped page."""

    def __init__(self, slice_seconds: float = 0.001, slice_instructions: int = 0) -> None:
        self.memory = Memory(16 << 20)
        for vaddr, writable, executable in (
            (TEXT, False, True),
            (DATA, True, False),
            (STACK, True, False),
        ):
            paddr = self.memory.alloc_pages(PAGE_SIZE)
            self.memory.map(vaddr, paddr, PAGE_SIZE, writable=writable, executable=executable)
        self.cpu = Cpu(
            self.memory, slice_seconds=slice_seconds, slice_instructions=slice_instructions
        )

    def run(self, code: str, **registers: int) -> Stop:
        self.memory.write(TEXT, bytes.fromhex(code))
        self.cpu.code_changed(TEXT, PAGE_SIZE)
        self.cpu["rip"] = TEXT
        self.cpu["rsp"] = STACK + PAGE_SIZE
        for name, value in registers.items():
            self.cpu[name] = value
        return self.cpu.run()


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(slice_seconds=0.2)  # longer than the tests here need, even under load
    yield board
    board.cpu.close()


def test_runs_code_until_it_halts(board: Board) -> None:
    assert (
        board.run("48 8d 04 37 f4", rdi=40, rsi=2).reason is StopReason.HALT
    )  # lea rax, [rdi+rsi]; hlt
    assert board.cpu["rax"] == 42


def test_a_trap_that_is_served_at_once_lets_the_guest_run_on(board: Board) -> None:
    def double() -> bool:
        board.cpu["rax"] = 2 * board.cpu.arguments(1)[0]
        return True

    board.cpu.set_trap(TEXT + 6, double)
    assert board.run("e8 01 00 00 00 f4" + TRAP.hex(), rdi=21).reason is StopReason.HALT
    assert board.cpu["rax"] == 42


def test_a_trap_that_waits_ends_the_slice_exactly_there(board: Board) -> None:
    board.cpu.set_trap(TEXT + 6, lambda: False)
    stop = board.run("e8 01 00 00 00 f4" + TRAP.hex())
    assert (stop.reason, stop.address) == (StopReason.TRAP, TEXT + 6)
    assert board.cpu["rip"] == TEXT + 10  # the ret
    board.cpu["rax"] = 7
    assert board.cpu.run().reason is StopReason.HALT
    assert board.cpu["rax"] == 7


def test_an_error_in_a_trap_comes_out_of_run(board: Board) -> None:
    def broken() -> bool:
        raise LookupError("no such service")

    board.cpu.set_trap(TEXT, broken)
    with pytest.raises(LookupError):
        board.run(TRAP.hex())


@pytest.mark.parametrize(
    ("what", "code", "vector", "address"),
    [
        ("read of nothing", "48 8b 04 25 00 00 00 00", 14, 0),
        ("write to text", "48 89 04 25 00 00 00 81", 14, TEXT),
        ("jump into data", "48 c7 c0 00 00 01 81 ff e0", 14, DATA),
        ("stack overflow", "48 c7 c4 00 00 02 81 50", 14, STACK - 8),
        ("division by zero", "31 c9 f7 f1", 0, 0),
        ("ud2", "0f 0b", 6, 0),
        ("int3", "cc", 3, 0),
    ],
)
def test_exceptions_are_exceptions(
    board: Board, what: str, code: str, vector: int, address: int
) -> None:
    for _ in range(3):  # the processor can run on after each
        stop = board.run(code)
        assert (stop.reason, stop.vector, stop.address) == (
            StopReason.EXCEPTION,
            vector,
            address,
        ), what
        assert board.run("90 f4").reason is StopReason.HALT


def test_an_endless_loop_is_stopped_after_its_slice(board: Board) -> None:
    stop = board.run("eb fe")
    assert stop.reason is StopReason.EXPIRED
    assert board.cpu["rip"] == TEXT


def test_an_instruction_that_changes_memory_is_done_once_wherever_the_slices_end() -> None:
    board = Board(slice_seconds=0.0001)
    try:
        # 1: incq (%rdi); inc %rbx; cmp %rcx, %rbx; jne 1b; hlt
        stop = board.run("48 ff 07 48 ff c3 48 39 cb 75 f5 f4", rdi=DATA, rbx=0, rcx=5_000_000)
        slices = 1
        while stop.reason is StopReason.EXPIRED:
            stop, slices = board.cpu.run(), slices + 1
        assert slices > 10
        assert board.memory.read(DATA, 8) == (5_000_000).to_bytes(8, "little")
    finally:
        board.cpu.close()


def test_a_slice_of_instructions_is_exact() -> None:
    board = Board(slice_instructions=1000)
    assert board.run("48 ff c0 eb fb", rax=0).reason is StopReason.EXPIRED  # 1: inc rax; jmp 1b
    assert board.cpu["rax"] == 500


def test_switching_between_two_contexts(board: Board) -> None:
    board.run("f4", rbx=1)
    first = board.cpu.save()
    board.cpu.restore(board.cpu.initial_context())
    board.run("f4", rbx=2)
    board.cpu.restore(first)
    assert board.cpu["rbx"] == 1


def test_changed_text_runs_after_code_changed(board: Board) -> None:
    board.run("b8 01 00 00 00 f4")
    board.run("b8 02 00 00 00 f4")
    assert board.cpu["rax"] == 2


def test_python_reads_across_pages_and_reports_the_missing_byte() -> None:
    memory = Memory(16 << 20)
    paddr = memory.alloc_pages(2 * PAGE_SIZE)
    memory.map(DATA, paddr, 2 * PAGE_SIZE, writable=True)
    memory.write(DATA + PAGE_SIZE - 2, b"four")
    assert memory.read(DATA + PAGE_SIZE - 2, 4) == b"four"
    assert memory.ram[paddr + PAGE_SIZE - 2 : paddr + PAGE_SIZE + 2] == b"four"
    with pytest.raises(PageFault) as fault:
        memory.read(DATA + 2 * PAGE_SIZE - 1, 2)
    assert fault.value.address == DATA + 2 * PAGE_SIZE
    memory.unmap(DATA, PAGE_SIZE)
    with pytest.raises(PageFault):
        memory.read(DATA, 1)


def test_freed_pages_are_reused() -> None:
    memory = Memory(16 << 20)
    before = memory.free_bytes
    pages = [memory.alloc_pages(n * PAGE_SIZE) for n in (1, 5, 2)]
    for paddr, n in zip(pages, (1, 5, 2), strict=True):
        memory.free_pages(paddr, n * PAGE_SIZE)
    assert memory.free_bytes == before
    with pytest.raises(MemoryError):
        memory.alloc_pages(1 << 30)


def test_code_in_pages_that_were_used_before_is_the_new_code(board: Board) -> None:
    """unicorn keeps translations by physical page, so they must be dropped before the pages are freed."""
    for value in (1, 2):
        paddr = board.memory.alloc_pages(2 * PAGE_SIZE)
        at = TEXT + 0x40000
        board.memory.map(at, paddr, 2 * PAGE_SIZE, executable=True)
        for page in (at, at + PAGE_SIZE):
            board.memory.write(page, bytes([0xB8, value, 0, 0, 0, 0xF4]))  # mov eax, value; hlt
            board.cpu["rip"] = page
            board.cpu.run()
            assert board.cpu["rax"] == value
        board.cpu.code_changed(at, 2 * PAGE_SIZE)
        board.memory.free_pages(board.memory.translate(at), 2 * PAGE_SIZE)
        board.memory.unmap(at, 2 * PAGE_SIZE)
