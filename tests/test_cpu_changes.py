# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trap may do to the machine under the guest code that called it: page tables, text, contexts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klpfs.machine.cpu import TRAP, Cpu, Stop, StopReason
from klpfs.machine.memory import PAGE_SIZE, START_KERNEL_MAP, Memory

TEXT = START_KERNEL_MAP
OTHER_TEXT = TEXT + 0x10000
STACK = TEXT + 0x20000
SCRATCH, SCRATCH_SIZE = TEXT + 0x40000, 3 * PAGE_SIZE
TRAPS = OTHER_TEXT + 0x800
"""Traps begin here, sixteen bytes apart."""

CHANGES = ("nothing", "map", "unmap", "protect", "poke", "save and restore", "wait")
"""What a trap does before it returns; ``wait`` ends the slice."""


class Program:
    """Guest code that calls one trap after the other and counts, and what each of them does."""

    def __init__(self, *, slice_instructions: int = 0) -> None:
        self.memory = Memory(16 << 20)
        self.cpu = Cpu(self.memory, slice_seconds=0.2, slice_instructions=slice_instructions)
        for page in (TEXT, OTHER_TEXT):
            self._map(page, executable=True)
        self._map(STACK)
        self.served: list[int] = []
        self.poked = 0

    def _map(self, vaddr: int, size: int = PAGE_SIZE, *, executable: bool = False) -> None:
        paddr = self.memory.alloc_pages(size)
        self.memory.map(vaddr, paddr, size, writable=not executable, executable=executable)

    def _do(self, change: str) -> bool:
        memory, cpu = self.memory, self.cpu
        if change == "map" and not memory.entry(SCRATCH):
            self._map(SCRATCH, SCRATCH_SIZE)
        elif change == "unmap" and memory.entry(SCRATCH):
            cpu.code_changed(SCRATCH, SCRATCH_SIZE)
            memory.free_pages(memory.translate(SCRATCH), SCRATCH_SIZE)
            memory.unmap(SCRATCH, SCRATCH_SIZE)
        elif change == "protect":
            memory.protect(OTHER_TEXT, PAGE_SIZE, writable=False, executable=True)
        elif change == "poke":
            self.poked += 1
            memory.write(OTHER_TEXT + 1, struct.pack("<I", self.poked))
            cpu.code_changed(OTHER_TEXT, 5)
        elif change == "save and restore":
            cpu.restore(cpu.save())
        return change != "wait"

    def run(self, changes: list[str]) -> list[Stop]:
        """Call a trap for each change; after each add what the function at OTHER_TEXT returns to R12."""
        code = b""
        self.expected = 0
        poked = 0
        for i, change in enumerate(changes):
            trap = TRAPS + 16 * i
            self.memory.write(trap, TRAP)

            def handler(i: int = i, change: str = change) -> bool:
                self.served.append(i)
                return self._do(change)

            self.cpu.set_trap(trap, handler)
            for target in (trap, OTHER_TEXT):
                code += b"\xe8" + struct.pack("<i", target - (TEXT + len(code) + 5))
            code += bytes.fromhex("49 01 c4 49 ff c5")  # add r12, rax; inc r13
            poked += change == "poke"
            self.expected += poked
        self.memory.write(TEXT, code + b"\xf4")
        self.memory.write(OTHER_TEXT, bytes.fromhex("b8 00 00 00 00 c3"))  # mov eax, 0; ret
        self.cpu["rip"], self.cpu["rsp"] = TEXT, STACK + PAGE_SIZE
        self.cpu["r12"] = self.cpu["r13"] = 0
        stops = [self.cpu.run()]
        while stops[-1].reason in (StopReason.TRAP, StopReason.EXPIRED) and len(stops) < 1000:
            stops.append(self.cpu.run())
        return stops

    def run_chained(self, changes: list[str]) -> list[Stop]:
        """Let each trap return into the next one, as a function that ends with a call of the next."""
        halt = TEXT
        self.memory.write(halt, b"\xf4")
        traps = [TRAPS + 16 * i for i in range(len(changes))]
        for i, (trap, change) in enumerate(zip(traps, changes, strict=True)):
            self.memory.write(trap, TRAP)

            def handler(i: int = i, change: str = change) -> bool:
                self.served.append(i)
                return self._do(change)

            self.cpu.set_trap(trap, handler)
        returns = struct.pack(f"<{len(traps)}Q", *traps[1:], halt)
        self.memory.write(STACK + PAGE_SIZE - len(returns), returns)
        self.cpu["rip"], self.cpu["rsp"] = traps[0], STACK + PAGE_SIZE - len(returns)
        stops = [self.cpu.run()]
        while stops[-1].reason in (StopReason.TRAP, StopReason.EXPIRED) and len(stops) < 1000:
            stops.append(self.cpu.run())
        return stops


@pytest.fixture(params=[0, 50], ids=["by time", "by instructions"])
def program(request: pytest.FixtureRequest) -> Iterator[Callable[[], Program]]:
    made: list[Program] = []

    def make() -> Program:
        made.append(Program(slice_instructions=request.param))
        return made[-1]

    yield make
    for one in made:
        one.cpu.close()


@settings(max_examples=40, deadline=None)
@given(
    changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=40),
    slices=st.sampled_from((0, 50)),
)
def test_guest_code_runs_on_after_whatever_its_traps_change(
    changes: list[str], slices: int
) -> None:
    program = Program(slice_instructions=slices)
    try:
        stops = program.run(changes)
        assert stops[-1].reason is StopReason.HALT
        assert program.served == list(range(len(changes)))  # each once, in order
        assert program.cpu["r13"] == len(changes)
        assert program.cpu["r12"] == program.expected  # poked text runs at the next call
        waits = [stop.address for stop in stops if stop.reason is StopReason.TRAP]
        assert waits == [TRAPS + 16 * i for i, change in enumerate(changes) if change == "wait"]
    finally:
        program.cpu.close()


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_once_before_a_trap_that_waits(
    program: Callable[[], Program], change: str
) -> None:
    machine = program()
    stops = machine.run(["map", change, "wait"])
    assert [stop.reason for stop in stops if stop.reason is not StopReason.EXPIRED][-2:] == [
        StopReason.TRAP,
        StopReason.HALT,
    ]
    assert machine.cpu["r13"] == 3


@settings(max_examples=40, deadline=None)
@given(
    changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=40),
    slices=st.sampled_from((0, 50)),
)
def test_traps_that_return_into_each_other(changes: list[str], slices: int) -> None:
    program = Program(slice_instructions=slices)
    try:
        stops = program.run_chained(changes)
        assert stops[-1].reason is StopReason.HALT
        assert program.served == list(range(len(changes)))
        waits = [stop.address for stop in stops if stop.reason is StopReason.TRAP]
        assert waits == [TRAPS + 16 * i for i, change in enumerate(changes) if change == "wait"]
    finally:
        program.cpu.close()
