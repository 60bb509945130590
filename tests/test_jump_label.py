# SPDX-License-Identifier: GPL-2.0-or-later
"""Static branches in memory that is freed after the init of a module."""

from __future__ import annotations

import struct

from klp_guest import booted

from klpfs.machine.instructions import NOP5, jump_to
from klpfs.machine.kernel.trace.jump_label import JumpLabels
from klpfs.machine.memory import PAGE_SIZE


async def test_a_branch_in_init_stays_after_init() -> None:
    async with booted() as guest:
        computer, base = guest.kernel.computer, guest.kernel.base
        data = computer.map_pages(computer.modules_area, PAGE_SIZE)
        text = computer.map_pages(computer.modules_area, PAGE_SIZE, executable=True)
        key, start, stays, in_init = data, data + 64, text, text + 64
        for i, code in enumerate((stays, in_init)):
            at = start + 16 * i
            # The compiler sets bit 1 of the key in each entry, for objtool.
            entry = struct.pack("<iiq", code - at, code + 32 - at - 4, key - at - 8 | 2)
            computer.memory.write(at, entry)
            computer.memory.write(code, NOP5)
        labels, table = JumpLabels(base), (start, start + 32)

        def switch(value: int) -> list[bool]:
            computer.memory.write(key, value.to_bytes(4, "little"))
            labels.jump_label_update(key)
            codes = [(at, computer.memory.read(at, 5)) for at in (stays, in_init)]
            return [code == jump_to(at, at + 32) for at, code in codes]

        labels.add(table, range(in_init, in_init + 64))
        assert switch(1) == [True, True]
        assert switch(0) == [False, False]
        labels.live(table)
        assert switch(1) == [True, False]
        labels.remove(table)
        assert switch(0) == [True, False]
