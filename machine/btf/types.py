# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of a kernel, by their names in C."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from klpfs.machine.btf.blob import Blob, BtfError
from klpfs.machine.btf.kinds import ENUMS, KINDS, Kind
from klpfs.machine.btf.type import Type

# The usual names of types in C, and those that compilers write into BTF.
_SPELLINGS = {
    "bool": "_Bool",
    "short": "short int",
    "unsigned short": "short unsigned int",
    "unsigned": "unsigned int",
    "long": "long int",
    "unsigned long": "long unsigned int",
    "long long": "long long int",
    "unsigned long long": "long long unsigned int",
}
_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(0[xX][0-9a-fA-F]+|\d+)\]")


class Types:
    """The types in a BTF blob. Raise BtfError if it is not BTF.

    ``types["struct klp_patch"]`` finds a type by its name in C: with ``struct``, ``union`` or
    ``enum`` before a tag, without for typedefs and basic types, with ``*`` for pointers.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = Blob(blob)
        self._void = Type(self, Kind.VOID, id=0)
        self._decoded: dict[int, Type] = {0: self._void}
        self._derived: dict[tuple[Kind, Type, int], Type] = {}
        self._located: dict[tuple[Type, str], tuple[int, Type]] = {}

    def __len__(self) -> int:
        """Return the number of types, including void."""
        return len(self.blob.places)

    def by_id(self, id: int) -> Type:
        """Return a type by its number in the blob. Raise BtfError."""
        type = self._decoded.get(id)
        if type is None:
            if id >= len(self.blob.places):
                raise BtfError(f"there is no type {id}")
            at = self.blob.places[id]
            name_off, info, size_or_type = self.blob.words[at : at + 3]
            type = self._decoded[id] = Type(
                self, KINDS[info >> 24 & 0x1F], id=id, at=at + 3, name_off=name_off, info=info,
                size_or_type=size_or_type,
            )  # fmt: skip
        return type

    def derived(self, kind: Kind, target: Type, count: int = 0) -> Type:
        """Return a type that need not be in the blob: a pointer to, or an array of, ``target``."""
        type = self._derived.get((kind, target, count))
        if type is None:
            type = Type(self, kind, target=target, count=count)
            self._derived[kind, target, count] = type
        return type

    def definition(self, declaration: Type) -> Type:
        """Return the struct or union that is declared; the declaration if it is not defined."""
        kind = Kind.UNION if declaration.declares_union else Kind.STRUCT
        id = self.blob.names(kind).get(declaration.name)
        return declaration if id is None else self.by_id(id)

    def _find(self, name: str, *kinds: Kind) -> Type | None:
        for kind in kinds:
            id = self.blob.names(kind).get(name)
            if id is not None:
                return self.by_id(id)
        return None

    def get(self, name: str) -> Type | None:
        """Return the type of that name or None. A definition is preferred to a declaration."""
        words = name.replace("*", " * ").split()
        stars = 0
        while words and words[-1] == "*":
            words.pop()
            stars += 1
        match words:
            case ["struct", tag]:
                type = self._find(tag, Kind.STRUCT) or self._declared(tag, union=False)
            case ["union", tag]:
                type = self._find(tag, Kind.UNION) or self._declared(tag, union=True)
            case ["enum", tag]:
                type = self._find(tag, Kind.ENUM, Kind.ENUM64)
            case ["void"]:
                type = self._void
            case _:
                plain = " ".join(words)
                type = self._find(plain, Kind.TYPEDEF, Kind.INT, Kind.FLOAT)
                if type is None and plain in _SPELLINGS:
                    type = self._find(_SPELLINGS[plain], Kind.INT)
        if type is not None:
            for _ in range(stars):
                type = type.pointer()
        return type

    def _declared(self, tag: str, union: bool) -> Type | None:
        type = self._find(tag, Kind.FWD)
        return type if type is not None and type.declares_union == union else None

    def __getitem__(self, name: str) -> Type:
        """Return the type of that name. Raise LookupError."""
        type = self.get(name)
        if type is None:
            raise LookupError(f"this kernel has no type '{name}'")
        return type

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[Type]:
        """Yield every type in the order of the blob, void first."""
        return map(self.by_id, range(len(self.blob.places)))

    def function(self, name: str) -> Type | None:
        """Return the function of that name or None; its ``target`` is the prototype."""
        return self._find(name, Kind.FUNC)

    def variable(self, name: str) -> Type | None:
        """Return the type of a global variable, or None if it is not in the blob."""
        type = self._find(name, Kind.VAR)
        return None if type is None else type.target

    def functions(self) -> Iterator[str]:
        """Yield the names of all functions in the blob."""
        return iter(self.blob.names(Kind.FUNC))

    def constant(self, name: str) -> int:
        """Return the value of an enum constant (``MODULE_STATE_LIVE``). Raise LookupError."""
        try:
            return self._constants[name]
        except KeyError:
            raise LookupError(f"this kernel has no constant '{name}'") from None

    @cached_property
    def _constants(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for id, at in enumerate(self.blob.places):
            if id and self.blob.words[at + 1] >> 24 & 0x1F in ENUMS:
                for name, value in self.by_id(id).values.items():
                    found.setdefault(name, value)
        return found

    def sizeof(self, name: str) -> int:
        """Return the size of a type in bytes. Raise LookupError."""
        return self[name].size

    def offsetof(self, name: str, path: str) -> int:
        """Return the offset in bytes of the member ``path`` (``"a.b[3].c"``) of a type.

        Raise LookupError if there is no such type or member, BtfError for a bitfield.
        """
        return self.locate(self[name], path)[0]

    def locate(self, type: Type, path: str) -> tuple[int, Type]:
        """Return the offset in bytes and the type of the member ``path`` of ``type``.

        Raise LookupError if there is no such member, BtfError for a bitfield.
        """
        found = self._located.get((type, path))
        if found is None:
            found = self._located[type, path] = self._locate(type, path)
        return found

    def _locate(self, type: Type, path: str) -> tuple[int, Type]:
        offset, at = 0, 0
        while at < len(path):
            step = _STEP.match(path, at)
            if step is None:
                raise LookupError(f"'{path}' is not the path of a member")
            at = step.end()
            inner = type.stripped
            if step[2]:
                if inner.kind is not Kind.ARRAY:
                    raise LookupError(f"{type} is not an array, in '{path}'")
                type = inner.target
                offset += int(step[2], 0) * type.size
                continue
            member = inner.fields.get(step[1])
            if member is None:
                raise LookupError(f"{type} has no member '{step[1]}'")
            if member.bit_size:
                raise BtfError(f"'{member.name}' of {type} is a bitfield")
            type = member.type
            offset += member.offset
        return offset, type
