# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbol table that every kernel carries in its .rodata (scripts/kallsyms.c), found by its shape.

Nothing says where it is: the symbols that would are the ones in it. What is searched for is the token
table, 256 strings whose offsets stand behind it; all the rest lies around it, in one of these orders, each
part aligned to 8 bytes:

    to 6.3    addresses  num_syms names markers [seqs_of_names] token_table token_index
    from 6.4             num_syms names markers token_table token_index  addresses [seqs_of_names]

where ``addresses`` is one of

    kallsyms_addresses                           64 bits each (without CONFIG_KALLSYMS_BASE_RELATIVE)
    kallsyms_offsets, kallsyms_relative_base     32 bits each, and what to add to them; in kernels with
                                                 per-CPU symbols from 0 up, those that are not negative
                                                 are addresses, and the others count down from base - 1
    kallsyms_offsets                             32 bits each, relative to their own place (from 7.0)

Names are a length (one byte; from 6.1 two, for 128 and more) and that many tokens, and the first
character is the symbol's kind. Every 256th name has its offset in the markers.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

_SYMBOLS_MAX = 1 << 20
_NAMES_MAX = 1 << 16
"""Bytes that 256 names take, at most, as far as this searches."""
_TEXT_MAX = 1 << 28
"""Bytes that all names can be when written out, at most."""
_U64 = (1 << 64) - 1
_PER_CPU_MAX = 1 << 31
_KERNEL = 0xFFFFFFFF80000000
_TOKENS = 256
_DIGITS = b"\0".join(b"%d" % digit for digit in range(10)) + b"\0"
"""Part of every token table: a character that names have is its own token."""
_INDEX = struct.Struct(f"<{_TOKENS}H")


class Table(NamedTuple):
    """The symbols, in the order of the table: the n-th of each is of the n-th symbol."""

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
    texts: list[str]
    """Kind and name of each symbol."""


def find(data: bytes, base: int) -> Table | None:
    """The symbols of a kernel whose .rodata is ``data``, at address ``base`` (a multiple of 8); None
    if they are not there."""
    for tokens in _find_tokens(data):
        names = _find_names(data, tokens)
        if names is None:
            continue
        addresses = _find_addresses(data, base, tokens, names)
        if addresses is not None:
            kinds = "".join([text[0] for text in names.texts])
            return Table(kinds, [text[1:] for text in names.texts], addresses)
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
    """The token table whose entry for "0" is at the offset ``digits``."""
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


def _find_names(data: bytes, tokens: _Tokens) -> _Names | None:
    """The names that end before the token table, with kallsyms_seqs_of_names between or without."""
    for blocks in range(1, _SYMBOLS_MAX // 256 + 1):
        at = tokens.start - 4 * blocks & -8
        if at < 0:
            break
        names = _names_before(data, at, blocks, tokens)
        if names is not None:
            return names
    for count in range(1, _SYMBOLS_MAX + 1):
        blocks = count + 255 >> 8
        at = (tokens.start - 3 * count & -8) - 4 * blocks & -8
        if at < 0:
            break
        if data[at : at + 4] == b"\0\0\0\0":
            names = _names_before(data, at, blocks, tokens)
            if names is not None and names.number == count:
                return names
    return None


def _names_before(data: bytes, markers_at: int, blocks: int, tokens: _Tokens) -> _Names | None:
    """The names whose ``blocks`` markers are at an offset, if markers are there."""
    if data[markers_at : markers_at + 4] != b"\0\0\0\0":
        return None
    markers = _integers("I", data[markers_at : markers_at + 4 * blocks])
    if any(not 512 <= b - a <= _NAMES_MAX for a, b in pairwise(markers)):
        return None
    # kallsyms_num_syms is 8 bytes before the names, with its own padding behind it.
    last = max(markers_at - markers[-1] - 8, 0) & -8
    first = max(last - _NAMES_MAX - 8, 0)
    wanted = range(256 * (blocks - 1) + 1, 256 * blocks + 1)
    for index, count in enumerate(_integers("Q", data[first:last])):
        if count in wanted:
            start = first + 8 * index
            for two_bytes in (True, False):
                texts = _names(data, start + 8, count, markers, markers_at, tokens, two_bytes)
                if texts is not None:
                    return _Names(start, count, texts)
    return None


def _names(
    data: bytes,
    start: int,
    count: int,
    markers: Sequence[int],
    end: int,
    tokens: _Tokens,
    two_bytes: bool,
) -> list[str] | None:
    """Kind and name of the ``count`` symbols from ``start`` to ``end``, if the markers are right."""
    stream = data[start:end].decode("latin-1")
    found: list[str] = []
    at, size = 0, len(stream)
    lengths = data[start:end]
    for block in range(0, count, 256):
        if at != markers[block >> 8]:
            return None
        for _ in range(block, min(block + 256, count)):
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
    return texts if len(texts) == count and "" not in texts else None


_SEPARATOR = chr(_TOKENS)


def _find_addresses(data: bytes, base: int, tokens: _Tokens, names: _Names) -> Sequence[int] | None:
    """The addresses, before or behind the names: those that ascend and end in the kernel."""
    count = names.number
    wide, narrow = 8 * count, 4 * count + 7 & -8
    before, behind = names.start, _align(tokens.end)
    for at, relative_base_at in ((before - 8 - narrow, before - 8), (behind, behind + narrow)):
        if at < 0 or relative_base_at + 8 > len(data):
            continue
        (relative_base,) = struct.unpack_from("<Q", data, relative_base_at)
        offsets = _integers("i", data[at : at + 4 * count])
        if relative_base >= _KERNEL:
            yes = _plausible(_relative(offsets, relative_base))
            if yes is not None:
                return yes
    for at in (before - wide, behind):
        if at >= 0 and at + wide <= len(data):
            yes = _plausible(_integers("Q", data[at : at + wide]))
            if yes is not None:
                return yes
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
    """Addresses, if they ascend and are all in the kernel but for those of per-CPU variables."""
    if addresses[-1] < _KERNEL or any(a > b for a, b in pairwise(addresses)):
        return None
    if bisect_left(addresses, _PER_CPU_MAX) != bisect_left(addresses, _KERNEL):
        return None
    return addresses


def _integers(kind: str, data: bytes) -> tuple[int, ...]:
    """Little-endian integers: ``i`` and ``I`` of 32 bits, ``Q`` of 64."""
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + kind)}{kind}", data)
