# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of BTF types: include/uapi/linux/btf.h."""

from __future__ import annotations

import enum


class Kind(enum.IntEnum):
    """The kind of a type, by its number in the blob."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


KINDS = tuple(Kind)
SIZED = frozenset(
    {Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.DATASEC}
)
"""Kinds whose size is in ``struct btf_type``."""
QUALIFIERS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}
ALIASES = frozenset({Kind.TYPEDEF, Kind.TYPE_TAG, *QUALIFIERS})
COMPOUND = frozenset({Kind.STRUCT, Kind.UNION})
ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
