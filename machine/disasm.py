# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine code as text. The only file that knows capstone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple


class Instruction(NamedTuple):
    """One decoded instruction. ``target``: where a direct call or jump goes."""

    address: int
    code: bytes
    text: str
    target: int | None


@cache
def _decoder() -> Any:
    # Imported when first needed: a machine that nobody looks into does not pay for it.
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT
    decoder.detail = True
    decoder.skipdata = True
    return decoder


def disassemble(code: bytes, address: int) -> Iterator[Instruction]:
    """Decode ``code`` that stands at ``address``; bytes that are no instruction come as ``.byte``."""
    import capstone

    for instruction in _decoder().disasm(code, address):
        target = None
        if instruction.id and (
            instruction.group(capstone.CS_GRP_CALL) or instruction.group(capstone.CS_GRP_JUMP)
        ):
            operand = instruction.operands[0]
            if operand.type == capstone.x86.X86_OP_IMM:
                target = operand.imm & (1 << 64) - 1
        text = f"{instruction.mnemonic} {instruction.op_str}".rstrip()
        yield Instruction(instruction.address, bytes(instruction.bytes), text, target)


def writes_memory(code: bytes) -> bool:
    """Whether the first instruction of ``code`` stores to memory."""
    import capstone

    for instruction in _decoder().disasm(code, 0, count=1):
        if not instruction.id:
            return False
        if instruction.group(capstone.CS_GRP_CALL) or instruction.mnemonic.startswith("push"):
            return True
        return any(
            operand.type == capstone.x86.X86_OP_MEM and operand.access & capstone.CS_AC_WRITE
            for operand in instruction.operands
        )
    return False
