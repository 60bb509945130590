# SPDX-License-Identifier: GPL-2.0-or-later
"""The x86 instructions written into kernel text: arch/x86/include/asm/text-patching.h."""

from __future__ import annotations

import struct

CALL_SIZE = 5
CALL, JMP, INT3 = 0xE8, 0xE9, 0xCC
NOP5 = bytes.fromhex("0f1f440000")
"""``nopl 0(%rax,%rax,1)``, the instruction at an ftrace site that is not traced."""


def call_to(site: int, target: int) -> bytes:
    """Return ``call target`` for the address ``site``.

    A distance that does not fit into 32 bits is truncated, as in Linux.
    """
    return struct.pack("<BI", CALL, target - (site + CALL_SIZE) & 0xFFFFFFFF)


def jump_to(site: int, target: int) -> bytes:
    """Return ``jmp target`` for the address ``site``, truncated as in `call_to`."""
    return struct.pack("<BI", JMP, target - (site + CALL_SIZE) & 0xFFFFFFFF)


def target_of(site: int, instruction: bytes) -> int | None:
    """Return the target of a 5-byte call or jump at ``site``; None for another instruction."""
    if instruction[0] not in (CALL, JMP):
        return None
    return int(site + CALL_SIZE + struct.unpack("<i", instruction[1:CALL_SIZE])[0])
