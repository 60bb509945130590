# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbol table in a kernel's .rodata (scripts/kallsyms.c), found by its shape.

The table's own symbols are the only ones that tell its address. So `find` searches for the token
table: 256 strings, followed by their offsets. The other parts are around it, in one of these
orders, each aligned to 8 bytes:

    to 6.3    addresses  num_syms names markers [seqs_of_names] token_table token_index
    from 6.4             num_syms names markers token_table token_index  addresses [seqs_of_names]

where ``addresses`` is one of

    kallsyms_addresses                        64 bits each (no CONFIG_KALLSYMS_BASE_RELATIVE)
    kallsyms_offsets, kallsyms_relative_base  32 bits each, relative to the base; with per-CPU
                                              symbols from 0 on, offsets that are not negative are
                                              addresses, and the others count down from base - 1
    kallsyms_offsets                          32 bits each, relative to their own addresses (7.0)

A name is a length (one byte; from 6.1 on two bytes for 128 and more) and that many tokens. Its
first character is the symbol's kind. The markers are the offsets of every 256th name.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

_SYMBOLS_MAX = 1 << 20
_NAMES_MAX = 1 << 16
"""The maximum size of 256 compressed names in bytes."""
_TOKENS_TRIED, _NAMES_TRIED = 8, 100
"""The maximum numbers of places to try."""
_TEXT_MAX = 1 << 28
"""The maximum size of all names in bytes when expanded."""
_U64 = (1 << 64) - 1
_PER_CPU_MAX = 1 << 31
_KERNEL = 0xFFFFFFFF80000000
_TOKENS = 256
_DIGITS = b"\0".join(b"%d" % digit for digit in range(10)) + b"\0"
"""The tokens of the digits, part of every token table: characters in use are tokens themselves."""
_INDEX = struct.Struct(f"<{_TOKENS}H")


class Table(NamedTuple):
    """The symbols in the order of the table, as three sequences of equal length."""

    kinds: str
    names: list[str]
    addresses: Sequence[int]


class _Tokens(NamedTuple):
    start: int
    """Offset of the token table."""
    end: int
    """Offset behind the token index."""
    tokens: list[str]


class _Names(NamedTuple):
    start: int
    """Offset of kallsyms_num_syms."""
    number: int
    """The number of symbols."""
    markers: Sequence[int]
    end: int
    """Offset of kallsyms_markers."""


def find(data: bytes, base: int) -> Table | None:
    """Return the symbols of a kernel, or None if ``data`` has no symbol table.

    ``data`` is the content of .rodata, whose address is ``base``, a multiple of 8.
    """
    for tokens in islice(_find_tokens(data), _TOKENS_TRIED):
        for place in islice(_find_names(data, tokens.start), _NAMES_TRIED):
            texts = _names(data, place, tokens, True) or _names(data, place, tokens, False)
            if texts is None:
                continue
            addresses = _find_addresses(data, base, tokens, place)
            if addresses is not None:
                kinds = "".join([text[0] for text in texts])
                return Table(kinds, [text[1:] for text in texts], addresses)
    return None


def _align(offset: int) -> int:
    return offset + 7 & -8


def _find_tokens(data: bytes) -> Iterator[_Tokens]:
    at = data.find(_DIGITS)
    while at >= 0:
        tokens = _tokens_around(data, at)
        if tokens is not None:
            yield tokens
        at = data.find(_DIGITS, at + 1)


def _tokens_around(data: bytes, digits: int) -> _Tokens | None:
    """Return the token table whose entry for "0" is at the offset ``digits``, or None."""
    end = digits
    for _ in range(ord("0"), _TOKENS):
        end = data.find(b"\0", end) + 1
        if not end:
            return None
    index_at = _align(end)
    if index_at + _INDEX.size > len(data):
        return None
    index = _INDEX.unpack_from(data, index_at)
    start = digits - index[ord("0")]
    if start < 0 or index[0]:
        return None
    texts = data[start : end - 1].split(b"\0")
    at = 0
    for text, expected in zip(texts, index, strict=False):
        if at != expected:
            return None
        at += len(text) + 1
    if len(texts) != _TOKENS:
        return None
    return _Tokens(start, index_at + _INDEX.size, [text.decode("latin-1") for text in texts])


def _find_names(data: bytes, tokens_at: int) -> Iterator[_Names]:
    """Yield the places where the names before a token table may be."""
    for markers_at, numbers in _marker_places(tokens_at):
        if data[markers_at : markers_at + 4] != b"\0\0\0\0":
            continue
        markers = _markers(data, markers_at, numbers[-1] + 255 >> 8)
        if markers is None:
            continue
        # kallsyms_num_syms is 8 bytes before the names, with its own padding behind it.
        last = max(markers_at - markers[-1] - 8, 0) & -8
        first = max(last - _NAMES_MAX - 8, 0)
        for index, number in enumerate(_integers("Q", data[first:last])):
            if number in numbers:
                yield _Names(first + 8 * index, number, markers, markers_at)


def _markers(data: bytes, start: int, count: int) -> list[int] | None:
    """Return the ``count`` markers at an offset, or None if they do not look like markers."""
    markers: list[int] = []
    for (marker,) in struct.iter_unpack("<I", data[start : start + 4 * count]):
        if markers and not 512 <= marker - markers[-1] <= _NAMES_MAX:
            return None
        markers.append(marker)
    return markers


def _marker_places(tokens_at: int) -> Iterator[tuple[int, range]]:
    """Yield possible offsets of kallsyms_markers, with the numbers of symbols that each implies.

    Those without kallsyms_seqs_of_names behind the markers come first.
    """
    for blocks in range(1, min(_SYMBOLS_MAX >> 8, tokens_at >> 2) + 1):
        yield tokens_at - 4 * blocks & -8, range(256 * blocks - 255, 256 * blocks + 1)
    for number in range(1, min(_SYMBOLS_MAX, tokens_at // 4) + 1):
        seqs_at = tokens_at - 3 * number & -8
        yield seqs_at - 4 * (number + 255 >> 8) & -8, range(number, number + 1)


def _names(data: bytes, names: _Names, tokens: _Tokens, two_bytes: bool) -> list[str] | None:
    """Return kind and name of each symbol as a string, or None if they do not fit the markers.

    ``two_bytes`` selects lengths of two bytes for names of more than 127 tokens.
    """
    start, end = names.start + 8, names.end
    stream = data[start:end].decode("latin-1")
    found: list[str] = []
    at, size = 0, len(stream)
    lengths = data[start:end]
    for block in range(0, names.number, 256):
        if at != names.markers[block >> 8]:
            return None
        for _ in range(block, min(block + 256, names.number)):
            if at >= size:
                return None
            length = lengths[at]
            at += 1
            if length >= 0x80 and two_bytes:
                if at >= size:
                    return None
                length = length & 0x7F | lengths[at] << 7
                at += 1
            if not length:
                return None
            found.append(stream[at : at + length])
            at += length
    if at > size or _align(start + at) != end:
        return None
    if len(stream) * max(map(len, tokens.tokens)) > _TEXT_MAX:
        return None
    text = _SEPARATOR.join(found).translate([*tokens.tokens, "\0"])
    if not text.isascii():
        text = text.encode("latin-1").decode("utf-8", "surrogateescape")
    texts = text.split("\0")
    return texts if len(texts) == names.number and "" not in texts else None


_SEPARATOR = chr(_TOKENS)


def _find_addresses(data: bytes, base: int, tokens: _Tokens, names: _Names) -> Sequence[int] | None:
    """Return the addresses, from before or behind the names; None if none of them are plausible."""
    count = names.number
    wide, narrow = 8 * count, 4 * count + 7 & -8
    before, behind = names.start, _align(tokens.end)
    for at, relative_base_at in ((before - 8 - narrow, before - 8), (behind, behind + narrow)):
        if at < 0 or relative_base_at + 8 > len(data):
            continue
        (relative_base,) = struct.unpack_from("<Q", data, relative_base_at)
        offsets = _integers("i", data[at : at + 4 * count])
        if relative_base >= _KERNEL:
            addresses = _plausible(_relative(offsets, relative_base))
            if addresses is not None:
                return addresses
    for at in (before - wide, behind):
        if at >= 0 and at + wide <= len(data):
            addresses = _plausible(_integers("Q", data[at : at + wide]))
            if addresses is not None:
                return addresses
    if behind + 4 * count <= len(data):
        place = base + behind
        offsets = _integers("i", data[behind : behind + 4 * count])
        return _plausible([place + 4 * i + offset & _U64 for i, offset in enumerate(offsets)])
    return None


def _relative(offsets: Sequence[int], base: int) -> list[int]:
    if min(offsets) >= 0:
        return [base + offset & _U64 for offset in offsets]
    # CONFIG_KALLSYMS_ABSOLUTE_PERCPU
    return [offset if offset >= 0 else base - 1 - offset & _U64 for offset in offsets]


def _plausible(addresses: Sequence[int]) -> Sequence[int] | None:
    """Return the addresses if they ascend and are of the kernel or per-CPU variables."""
    if addresses[-1] < _KERNEL or any(a > b for a, b in pairwise(addresses)):
        return None
    if bisect_left(addresses, _PER_CPU_MAX) != bisect_left(addresses, _KERNEL):
        return None
    return addresses


def _integers(kind: str, data: bytes) -> tuple[int, ...]:
    """Unpack little-endian integers: ``i`` and ``I`` have 32 bits, ``Q`` has 64."""
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + kind)}{kind}", data)
