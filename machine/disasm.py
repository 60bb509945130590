# SPDX-License-Identifier: GPL-2.0-or-later
"""The disassembler. This is the only file that imports capstone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple


class Instruction(NamedTuple):
    """One decoded instruction. ``target`` is the destination of a direct call or jump, or None."""

    address: int
    code: bytes
    text: str
    target: int | None


@cache
def _decoder() -> Any:
    # Imported on first use: most machines never disassemble anything.
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT
    decoder.detail = True
    decoder.skipdata = True
    return decoder


def disassemble(code: bytes, address: int) -> Iterator[Instruction]:
    """Decode ``code``, which is at ``address``. Bytes that are no instruction become ``.byte``."""
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


def memory_operand(code: bytes, registers: Mapping[str, int]) -> int:
    """Return the address that the first instruction of ``code`` reads or writes, or 0.

    This is ``insn_get_addr_ref``, arch/x86/lib/insn-eval.c. ``registers`` are by name, with rip.
    """
    import capstone

    for instruction in _decoder().disasm(code, registers["rip"], count=1):
        for operand in instruction.operands if instruction.id else ():
            if operand.type == capstone.x86.X86_OP_MEM:
                memory = operand.mem
                base = registers.get(instruction.reg_name(memory.base) or "", 0)
                index = registers.get(instruction.reg_name(memory.index) or "", 0)
                if memory.base == capstone.x86.X86_REG_RIP:
                    base += instruction.size
                return int(base + index * memory.scale + memory.disp) & (1 << 64) - 1
        if instruction.mnemonic.startswith(("push", "call", "ret", "pop")):
            return registers["rsp"]
    return 0


def writes_memory(code: bytes) -> bool:
    """Return whether the first instruction of ``code`` stores to memory."""
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
