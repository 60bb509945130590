# SPDX-License-Identifier: GPL-2.0-or-later
"""The few instructions of x86 that are written into kernel text, arch/x86/include/asm/text-patching.h."""

from __future__ import annotations

import struct

CALL_SIZE = 5
CALL, JMP, INT3 = 0xE8, 0xE9, 0xCC
NOP5 = bytes.fromhex("0f1f440000")
"""``nopl 0(%rax,%rax,1)``: what stands at a call site that nothing traces."""


def call_to(site: int, target: int) -> bytes:
    """``call target`` at ``site``. One that is out of reach gets somewhere else, as in Linux."""
    return struct.pack("<BI", CALL, target - (site + CALL_SIZE) & 0xFFFFFFFF)


def jump_to(site: int, target: int) -> bytes:
    """``jmp target`` at ``site``, likewise."""
    return struct.pack("<BI", JMP, target - (site + CALL_SIZE) & 0xFFFFFFFF)


def target_of(site: int, instruction: bytes) -> int | None:
    """Where a 5-byte call or jump at ``site`` goes; None if it is neither."""
    if instruction[0] not in (CALL, JMP):
        return None
    return int(site + CALL_SIZE + struct.unpack("<i", instruction[1:CALL_SIZE])[0])
