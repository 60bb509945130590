# SPDX-License-Identifier: GPL-2.0-or-later
"""Static keys: branches in the text that are nops or jumps. kernel/jump_label.c,
arch/x86/kernel/jump_label.c.

Guest code counts the users of a key, and calls ``jump_label_update`` when the text must change. In an image
that was not booted, the branches are as compiled, which matches the initial value of each key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from klpfs.machine.instructions import NOP5, jump_to
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.service import Ptr, service

_ENTRY = struct.Struct("<iiq")
_INVERTED, _IN_INIT, _FLAGS = 1, 2, 3
_NOP2, _JMP8 = b"\x66\x90", 0xEB
_U64 = (1 << 64) - 1


@dataclass(frozen=True)
class _Entry:
    """A ``struct jump_entry``. ``inverted``: the branch is a jump while the key is off. ``in_init``: the
    branch is in memory that is freed after init."""

    code: int
    target: int
    key: int
    inverted: bool
    in_init: bool


class JumpLabels:
    """The static branches of the kernel and its modules."""

    def __init__(self, base: Base) -> None:
        self._computer = computer = base.computer
        self._text = base.text
        self._tables: list[tuple[int, int]] = []
        self._coming: set[tuple[int, int]] = set()
        """The tables whose branches in init can change: of modules whose init has not ended."""
        first = computer.symbols.lookup("__start___jump_table")
        last = computer.symbols.lookup("__stop___jump_table")
        if first and last:
            self._tables.append((first, last))
            if not computer.image.booted:  # jump_label_init() has not run, and init memory stays
                self._coming.add((first, last))
        initialized = computer.symbols.lookup("static_key_initialized")
        if initialized:
            computer.memory.write(initialized, b"\1")

    def add(self, table: tuple[int, int], init: range = range(0)) -> None:
        """``jump_label_add_module``: add the branches of a module, and set each to the state of its key.
        ``table``: start and end of its ``__jump_table``; both 0 if it has none. ``init``: the addresses
        that are freed after init."""
        if table[0]:
            self._mark_init(table, init)
            self._tables.append(table)
            self._coming.add(table)
            for entry in self._entries(table):
                self._transform(entry)

    def _mark_init(self, table: tuple[int, int], init: range) -> None:
        """``jump_entry_set_init``: mark the entries of branches in ``init``, and no others. The compiler has
        marked all of them, for objtool."""
        for at, entry in zip(range(*table, _ENTRY.size), self._entries(table), strict=False):
            key = self._computer.space.read_u64(at + 8) & ~_IN_INIT
            key |= _IN_INIT if entry.code in init else 0
            self._computer.memory.write(at + 8, key.to_bytes(8, "little"))

    def live(self, table: tuple[int, int]) -> None:
        """Note that the init of a module has ended: its branches in init no longer change."""
        self._coming.discard(table)

    def remove(self, table: tuple[int, int]) -> None:
        """``jump_label_del_module``: remove the branches of a module."""
        self._coming.discard(table)
        if table in self._tables:
            self._tables.remove(table)

    def _entries(self, table: tuple[int, int]) -> Iterator[_Entry]:
        start, end = table
        data = self._computer.memory.read(start, (end - start) // _ENTRY.size * _ENTRY.size)
        for at, (code, target, key) in zip(
            range(start, end, _ENTRY.size), _ENTRY.iter_unpack(data), strict=False
        ):
            yield _Entry(
                (at + code) & _U64,
                (at + 4 + target) & _U64,
                (at + 8 + (key & ~_FLAGS)) & _U64,
                bool(key & _INVERTED),
                bool(key & _IN_INIT),
            )

    @service("jump_label_update", embedded=False)
    def jump_label_update(self, key: Ptr) -> None:
        for table in self._tables:
            for entry in self._entries(table):
                if entry.key == key and (not entry.in_init or table in self._coming):
                    self._transform(entry)

    def _transform(self, entry: _Entry) -> None:
        """``jump_label_transform``: make the branch a nop or a jump. The only CPU is between two
        instructions now, so an instruction can be replaced in one step by another of the same size."""
        enabled = self._computer.space.read_s32(entry.key)  # -1 while it is being enabled
        jumps = (enabled != 0) != entry.inverted
        now = self._text.read(entry.code)
        if now[0] == _JMP8 or now[:2] == _NOP2:
            code = bytes([_JMP8, (entry.target - entry.code - 2) & 0xFF]) if jumps else _NOP2
        else:
            code = jump_to(entry.code, entry.target) if jumps else NOP5
        if now[: len(code)] != code:
            self._text.poke_early(entry.code, code)
