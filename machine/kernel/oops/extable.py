# SPDX-License-Identifier: GPL-2.0-or-later
"""Exception tables: instructions that may fault, and their fixups. arch/x86/mm/extable.c.

An entry of ``__ex_table`` is three 32-bit numbers: the addresses of the instruction and of its fixup, both
relative to the number itself, and the type of the fixup (asm/extable_fixup_types.h).
"""

from __future__ import annotations

import errno
import struct

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop
from klpfs.machine.memory import PageFault

_ENTRY = struct.Struct("<iii")
_DEFAULT, _FAULT, _UACCESS, _COPY = 1, 2, 3, 4
_WRMSR, _RDMSR, _WRMSR_SAFE, _RDMSR_SAFE, _DEFAULT_MCE_SAFE, _FAULT_MCE_SAFE = 8, 9, 10, 11, 14, 15
_POP_REG, _IMM_REG, _UCOPY_LEN = 16, 17, 19
_CLEAR_AX, _CLEAR_DX = 1, 2
_REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
              "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")  # fmt: skip


class ExceptionTables:
    """The exception tables of the kernel and of its modules."""

    def __init__(self, computer: Computer) -> None:
        self._computer = computer
        self._cpu = computer.cpu
        self._tables: dict[int, dict[int, tuple[int, int]]] = {}
        start = computer.symbols.lookup("__start___ex_table")
        end = computer.symbols.lookup("__stop___ex_table")
        if start and end:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the table at ``[start, end)``."""
        size = _ENTRY.size
        table = self._computer.memory.read(start, (end - start) // size * size)
        entries = self._tables[start] = {}
        for at, (instruction, fixup, data) in enumerate(_ENTRY.iter_unpack(table)):
            here = start + at * size
            entries[here + instruction] = here + 4 + fixup, data

    def remove(self, start: int) -> None:
        """Remove the table at ``start``."""
        self._tables.pop(start, None)

    def fix_up(self, stop: Stop) -> bool:
        """``fixup_exception``: continue at the fixup of the current instruction. Returns False if it has
        none, or one of a type that this CPU does not support."""
        rip = self._cpu["rip"]
        found = next((table[rip] for table in self._tables.values() if rip in table), None)
        if found is None:
            return False
        fixup, data = found
        kind, register = data & 0xFF, _REGISTERS[data >> 8 & 0xF]
        flags, immediate = data >> 12 & 0xF, data >> 16
        cpu = self._cpu
        if kind in (_FAULT, _FAULT_MCE_SAFE, _COPY):
            cpu["rax"] = stop.vector
        elif kind in (_RDMSR, _RDMSR_SAFE):
            cpu["rax"] = cpu["rdx"] = 0
        elif kind == _POP_REG:
            try:
                cpu[register] = self._computer.space.read_u64(cpu["rsp"])
            except PageFault:
                return False
            cpu["rsp"] += 8
        elif kind == _IMM_REG:
            cpu[register] = immediate
        elif kind == _UCOPY_LEN:
            cpu["rcx"] = immediate * cpu["rcx"] + cpu[register]
        elif kind not in (_DEFAULT, _UACCESS, _WRMSR, _WRMSR_SAFE, _DEFAULT_MCE_SAFE):
            return False
        if kind in (_RDMSR_SAFE, _WRMSR_SAFE):
            cpu[register] = -errno.EIO
        if flags & _CLEAR_AX:
            cpu["rax"] = 0
        if flags & _CLEAR_DX:
            cpu["rdx"] = 0
        cpu["rip"] = fixup
        return True
