# SPDX-License-Identifier: GPL-2.0-or-later
"""C declarations of BTF types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from klpfs.machine.btf.blob import BtfError
from klpfs.machine.btf.kinds import QUALIFIERS, Kind

if TYPE_CHECKING:
    from klpfs.machine.btf.type import Type

_MAX_STEPS = 400  # a declaration that takes more contains itself
_TAGS = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}


def declare(type: Type, name: str) -> str:
    """Return the declaration of ``name`` as a ``type``; see `Type.declare`."""
    return _declare(type, name, iter(range(_MAX_STEPS)))


def _declare(type: Type, name: str, steps: Iterator[int]) -> str:
    if next(steps, None) is None:
        raise BtfError(f"type {type.id} is made of itself")
    gap = " " if name and name[0] not in "[" else ""
    match type.kind:
        case Kind.VOID:
            return "void" + gap + name
        case Kind.PTR:
            if type.target.kind in (Kind.ARRAY, Kind.FUNC_PROTO):
                return _declare(type.target, f"(*{name})", steps)
            return _declare(type.target, "*" + name, steps)
        case Kind.ARRAY:
            return _declare(type.target, f"{name}[{type.count or ''}]", steps)
        case Kind.FUNC_PROTO:
            given = [_declare(p.type, p.name, steps) for p in type.parameters]
            given += ["..."] if type.variadic else []
            return _declare(type.target, f"{name}({', '.join(given) or 'void'})", steps)
        case Kind.FUNC | Kind.VAR:
            return _declare(type.target, name or type.name, steps)
        case Kind.TYPE_TAG | Kind.DECL_TAG:
            return _declare(type.target, name, steps)
        case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT:
            word = QUALIFIERS[type.kind]
            if type.target.kind is Kind.PTR:  # const of the pointer, not of what it points to
                return _declare(type.target, word + gap + name, steps)
            return f"{word} {_declare(type.target, name, steps)}"
        case Kind.FWD:
            tag = "union " if type.declares_union else "struct "
        case _:
            tag = _TAGS.get(type.kind, "")
    return tag + (type.name or "{...}") + gap + name
