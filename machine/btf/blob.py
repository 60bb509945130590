# SPDX-License-Identifier: GPL-2.0-or-later
"""The binary format of BTF: a header, the types as 32-bit words, the strings."""

from __future__ import annotations

import struct

from klpfs.machine.btf.kinds import KINDS, Kind

# struct btf_header: magic version flags hdr_len type_off type_len str_off str_len
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC, _MAGIC_BIG_ENDIAN = 0xEB9F, 0x9FEB

# The 32-bit words of a type: the three of struct btf_type, a number that depends on the kind,
# and a number for each of the vlen elements.
_FIXED = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VAR: 1, Kind.DECL_TAG: 1}
_PER_VLEN = {
    Kind.STRUCT: 3, Kind.UNION: 3, Kind.ENUM: 2, Kind.FUNC_PROTO: 2, Kind.DATASEC: 3,
    Kind.ENUM64: 3,
}  # fmt: skip
_WORDS = tuple((3 + _FIXED.get(k, 0), _PER_VLEN.get(k, 0)) for k in KINDS)


class BtfError(ValueError):
    """The blob is damaged, or lacks what was asked for, as the size of a declaration."""


class Blob:
    """The content of a BTF blob, with the place of each type. Raise BtfError if it is not BTF.

    ``words`` are the 32-bit words of the types. ``places`` has the index of the first word of each
    type, by its id; id 0 is void, which is not in the words.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise BtfError("too short to be BTF")
        magic, version, _, hdr_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic == _MAGIC_BIG_ENDIAN:
            raise BtfError("BTF of a big-endian machine")
        if magic != _MAGIC:
            raise BtfError(f"not BTF: it begins with {magic:#06x}, not {_MAGIC:#06x}")
        if version != 1:
            raise BtfError(f"BTF version {version} is not supported, only version 1")
        if hdr_len < _HEADER.size or hdr_len > len(data):
            raise BtfError(f"the length of the BTF header, {hdr_len}, is invalid")
        room = len(data) - hdr_len
        if type_off % 4 or type_len % 4 or type_off + type_len > room:
            raise BtfError("the BTF types are not within the blob")
        if str_off + str_len > room:
            raise BtfError("the BTF strings are not within the blob")
        begin = hdr_len + type_off
        self.words = memoryview(data)[begin : begin + type_len].cast("I")
        begin = hdr_len + str_off
        self._strings = bytes(data[begin : begin + str_len])
        if self._strings[:1] != b"\0" or self._strings[-1:] != b"\0":
            raise BtfError("the BTF strings do not begin and end with a NUL")
        self._names: dict[Kind, dict[str, int]] = {}
        self._by_name_off: tuple[dict[int, int], ...] = tuple({} for _ in Kind)
        self.places = self._scan()

    def _scan(self) -> list[int]:
        """Return the places of the types, and fill in ``_by_name_off``."""
        words, end = self.words, len(self.words)
        sizes, named = _WORDS, self._by_name_off
        places = [0]
        at = 0
        while at < end:
            try:
                info = words[at + 1]
                kind = info >> 24 & 0x1F
                fixed, per = sizes[kind]
                name_off = words[at]
            except IndexError:
                raise BtfError(f"type {len(places)} is cut short or of an unknown kind") from None
            if not kind:
                raise BtfError(f"type {len(places)} has no kind")
            if name_off and name_off not in named[kind]:
                named[kind][name_off] = len(places)
            places.append(at)
            at += fixed + per * (info & 0xFFFF) if per else fixed
        if at > end:
            raise BtfError(f"type {len(places) - 1} is cut short")
        return places

    def string(self, offset: int) -> str:
        """Return a string by its offset in the blob's strings. Raise BtfError."""
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise BtfError(f"the name at {offset:#x} is outside the BTF strings")
        return self._strings[offset:end].decode("utf-8", "replace")

    def names(self, kind: Kind) -> dict[str, int]:
        """Return the ids of the named types of a kind; the first if several have a name."""
        names = self._names.get(kind)
        if names is None:
            names = self._names[kind] = {}
            for offset, id in self._by_name_off[kind].items():
                names.setdefault(self.string(offset), id)
        return names
