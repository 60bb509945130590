# SPDX-License-Identifier: GPL-2.0-or-later
"""How numbers are stored in guest memory: integers, booleans, enums, bitfields, floats."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from klpfs.machine.btf import Member, Type
from klpfs.machine.structs.plain import MemoryLike

_INTEGERS = {
    (1, False): "<B", (1, True): "<b", (2, False): "<H", (2, True): "<h",
    (4, False): "<I", (4, True): "<i", (8, False): "<Q", (8, True): "<q",
}  # fmt: skip
_FLOATS = {2: "<e", 4: "<f", 8: "<d"}


class Codec(NamedTuple):
    """Functions that read and write a value of one type, or a bitfield, at an address."""

    load: Callable[[int], Any]
    store: Callable[[int, Any], None]


def integer(memory: MemoryLike, ctype: Type) -> Codec:
    """Return the codec of an integer, boolean or enum type."""
    read, write = memory.read, memory.write
    size, signed = ctype.size, ctype.signed
    if ctype.is_bool:
        return Codec(
            lambda address: read(address, size) != bytes(size),
            lambda address, value: write(address, bool(value).to_bytes(size, "little")),
        )
    mask, half = (1 << size * 8) - 1, 1 << size * 8 >> 1
    if (layout := _INTEGERS.get((size, signed))) is not None:
        if signed:
            return _packed(memory, layout, lambda value: ((value + half) & mask) - half)
        return _packed(memory, layout, lambda value: value & mask)
    return Codec(
        lambda address: int.from_bytes(read(address, size), "little", signed=signed),
        lambda address, value: write(address, (value & mask).to_bytes(size, "little")),
    )


def floating(memory: MemoryLike, ctype: Type) -> Codec:
    """Return the codec of a floating-point type; `unusable` for ``long double``."""
    layout = _FLOATS.get(ctype.size)
    return unusable(ctype) if layout is None else _packed(memory, layout, lambda value: value)


def bitfield(memory: MemoryLike, member: Member) -> Codec:
    """Return the codec of a bitfield, for the address of the byte in which it begins."""
    read, write = memory.read, memory.write
    shift, bits = member.bit_offset & 7, member.bit_size
    ctype = member.type.stripped
    size, mask = (shift + bits + 7) // 8, (1 << bits) - 1
    sign = 1 << bits >> 1 if ctype.signed else 0
    is_bool = ctype.is_bool

    def load(address: int) -> int:
        value = int.from_bytes(read(address, size), "little") >> shift & mask
        return bool(value) if is_bool else (value ^ sign) - sign

    def store(address: int, value: int) -> None:
        value = bool(value) if is_bool else value & mask
        around = int.from_bytes(read(address, size), "little") & ~(mask << shift)
        write(address, (around | value << shift).to_bytes(size, "little"))

    return Codec(load, store)


def unusable(ctype: Type) -> Codec:
    """Return a codec that raises TypeError, for a type without values."""

    def refuse(*_: Any) -> Any:
        raise TypeError(f"{ctype} cannot be read or written")

    return Codec(refuse, refuse)


def _packed(memory: MemoryLike, layout: str, convert: Callable[[Any], Any]) -> Codec:
    read, write = memory.read, memory.write
    packed = struct.Struct(layout)
    unpack, pack, size = packed.unpack, packed.pack, packed.size

    def load(address: int) -> Any:
        return unpack(read(address, size))[0]

    def store(address: int, value: Any) -> None:
        write(address, pack(convert(value)))

    return Codec(load, store)
