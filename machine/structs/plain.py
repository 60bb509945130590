# SPDX-License-Identifier: GPL-2.0-or-later
"""Integers and strings at addresses of a memory."""

from __future__ import annotations

from typing import Protocol

from klpfs.machine.memory import PAGE_SIZE

U64 = (1 << 64) - 1


class MemoryLike(Protocol):
    """The part of `klpfs.machine.memory.Memory` that views need."""

    def read(self, addr: int, size: int, /) -> bytes:
        """Return ``size`` bytes from ``addr``."""

    def write(self, addr: int, data: bytes, /) -> None:
        """Store ``data`` at ``addr``."""


class PlainMemory:
    """Access to a memory without types.

    All methods pass on the exceptions of the memory (`klpfs.machine.memory.PageFault`).
    """

    def __init__(self, memory: MemoryLike) -> None:
        self.memory = memory

    def read_u64(self, address: int) -> int:
        """Return the unsigned 64-bit integer at ``address``."""
        return int.from_bytes(self.memory.read(address, 8), "little")

    def read_u32(self, address: int) -> int:
        """Return the unsigned 32-bit integer at ``address``."""
        return int.from_bytes(self.memory.read(address, 4), "little")

    def read_s32(self, address: int) -> int:
        """Return the signed 32-bit integer at ``address``."""
        return int.from_bytes(self.memory.read(address, 4), "little", signed=True)

    def read_u8(self, address: int) -> int:
        """Return the byte at ``address``."""
        return self.memory.read(address, 1)[0]

    def write_u64(self, address: int, value: int) -> None:
        """Store the low 64 bits of ``value``."""
        self.memory.write(address, (value & U64).to_bytes(8, "little"))

    def write_u32(self, address: int, value: int) -> None:
        """Store the low 32 bits of ``value``."""
        self.memory.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    write_s32 = write_u32

    def write_u8(self, address: int, value: int) -> None:
        """Store the low 8 bits of ``value``."""
        self.memory.write(address, bytes((value & 0xFF,)))

    def read_string(self, address: int, limit: int = PAGE_SIZE) -> str:
        """Return the text at ``address`` up to a NUL, at most ``limit`` bytes.

        Pages behind the NUL are not read. Bytes that are not UTF-8 become surrogates
        (``surrogateescape``).
        """
        return as_text(self.read_cstring(address, limit))

    def read_cstring(self, address: int, limit: int = PAGE_SIZE) -> bytes:
        """Like `read_string`, but return bytes."""
        parts = []
        while limit > 0:
            take = min(limit, PAGE_SIZE - address % PAGE_SIZE, 256)
            part = self.memory.read(address, take)
            end = part.find(b"\0")
            if end >= 0:
                parts.append(part[:end])
                break
            parts.append(part)
            address, limit = address + take, limit - take
        return b"".join(parts)


def as_text(data: bytes) -> str:
    """Decode UTF-8; other bytes become surrogates (``surrogateescape``)."""
    return data.decode("utf-8", "surrogateescape")
