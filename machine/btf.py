# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's own type information: BTF, Documentation/bpf/btf.rst.

A kernel's blob holds some 130,000 types, of which a run uses a few dozen. So `Types` walks the blob
once to learn where each type is, and decodes a type when somebody asks for it.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

# struct btf_header: magic version flags hdr_len type_off type_len str_off str_len
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC, _MAGIC_BIG_ENDIAN = 0xEB9F, 0x9FEB
_POINTER_SIZE = 8
_DEPTH = 64  # longer chains of types than any compiler makes: the blob goes round in circles
_WORDINESS = 400  # nor does a declaration have more words
_MAX_FIELDS = 1 << 16  # BTF's own limit for one struct; with its anonymous members it is the same


class BtfError(ValueError):
    """The blob is damaged, or was asked for what it does not hold (the size of a declaration)."""


class Kind(enum.IntEnum):
    """What a type is. The numbers are those of the file, include/uapi/linux/btf.h."""

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


_KINDS = tuple(Kind)
_SIZED = frozenset(
    {Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.DATASEC}
)
_QUALIFIERS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}
_ALIASES = frozenset({Kind.TYPEDEF, Kind.TYPE_TAG, *_QUALIFIERS})
_COMPOUND = frozenset({Kind.STRUCT, Kind.UNION})
_ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
_TAGS = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}

# 32-bit words that follow the three of struct btf_type: a fixed number, and so many per vlen.
_FIXED = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VAR: 1, Kind.DECL_TAG: 1}
_PER_VLEN = {
    Kind.STRUCT: 3, Kind.UNION: 3, Kind.ENUM: 2, Kind.FUNC_PROTO: 2, Kind.DATASEC: 3,
    Kind.ENUM64: 3,
}  # fmt: skip
_WORDS = tuple((3 + _FIXED.get(k, 0), _PER_VLEN.get(k, 0)) for k in _KINDS)

# How C programmers write what the compiler writes into BTF.
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


class Member(NamedTuple):
    """A member of a struct or union.

    ``bit_offset`` counts from the start of the struct; ``bit_size`` is 0 for what is no bitfield.
    """

    name: str
    type: Type
    bit_offset: int
    bit_size: int

    @property
    def offset(self) -> int:
        """Bytes from the start of the struct; of a bitfield, of the byte it begins in."""
        return self.bit_offset >> 3


class Parameter(NamedTuple):
    """A parameter of a function; ``name`` may be empty."""

    name: str
    type: Type


class Type:
    """One C type. Two are the same type when they are the same object.

    What a damaged blob holds shows only when it is looked at: every property may raise BtfError.
    """

    def __init__(
        self, types: Types, kind: Kind, *, id: int = -1, at: int = 0, name_off: int = 0,
        info: int = 0, size_or_type: int = 0, target: Type | None = None, count: int = 0,
    ) -> None:  # fmt: skip
        self.types = types
        self.kind = kind
        self.id = id
        self._at = at
        self._name_off = name_off
        self._vlen = info & 0xFFFF
        self._flag = bool(info >> 31)
        self._size_or_type = size_or_type
        self._target = target
        self._count = count

    @cached_property
    def name(self) -> str:
        """The name without ``struct``; empty for what has none."""
        return self.types._string(self._name_off)

    @cached_property
    def target(self) -> Type:
        """What a pointer points to, an array is made of, a typedef or qualifier stands for, a
        function returns; of a variable its type, of a function its prototype."""
        if self._target is not None:
            return self._target
        if self.kind in _SIZED or self.kind is Kind.VOID or self.kind is Kind.FWD:
            raise BtfError(f"{self.kind.name} refers to no other type")
        if self.kind is Kind.ARRAY:
            return self.types._type(self.types._words[self._at])
        return self.types._type(self._size_or_type)

    @cached_property
    def stripped(self) -> Type:
        """The type behind typedefs, qualifiers and type tags; a forward declaration becomes the
        definition when the blob has one."""
        at = self
        for _ in range(_DEPTH):
            if at.kind is Kind.FWD:
                return self.types._defined(at)
            if at.kind not in _ALIASES:
                return at
            at = at.target
        raise BtfError(f"type {self.id} stands for itself")

    @cached_property
    def size(self) -> int:
        """Its size in bytes, 0 for void. Raises BtfError for functions and mere declarations."""
        count, at = 1, self.stripped
        for _ in range(_DEPTH):
            if at.kind in _SIZED:
                return count * at._size_or_type
            if at.kind is Kind.PTR:
                return count * _POINTER_SIZE
            if at.kind is Kind.VOID:
                return 0
            if at.kind is not Kind.ARRAY:
                raise BtfError(f"{at} has no size")
            count, at = count * at.count, at.target.stripped
        raise BtfError(f"type {self.id} is an array of itself")

    @property
    def count(self) -> int:
        """The number of elements of an array; a flexible array has 0."""
        if self.kind is not Kind.ARRAY or self.id < 0:
            return self._count
        return self.types._words[self._at + 2]

    @property
    def signed(self) -> bool:
        """Whether an integer or an enum is signed."""
        if self.kind is Kind.INT:
            return bool(self.types._words[self._at] >> 24 & 1)
        return self._flag and self.kind in _ENUMS

    @property
    def is_bool(self) -> bool:
        """Whether this is C's ``_Bool``."""
        return self.kind is Kind.INT and bool(self.types._words[self._at] >> 24 & 4)

    @property
    def is_compound(self) -> bool:
        """Whether this is a struct or a union, and defined."""
        return self.kind in _COMPOUND

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The members of a struct or union as they were declared; empty for other types."""
        if self.kind not in _COMPOUND:
            return ()
        members, words, types = [], self.types._words, self.types
        for at in range(self._at, self._at + 3 * self._vlen, 3):
            offset, bits, type = words[at + 2], 0, types._type(words[at + 1])
            if self._flag:
                offset, bits = offset & 0xFFFFFF, offset >> 24
            elif (base := type.stripped).kind is Kind.INT:
                # The older way to say bitfield: an integer type of its own, of so many bits.
                encoding = words[base._at]
                if encoding & 0xFF != base._size_or_type * 8 or encoding >> 16 & 0xFF:
                    offset, bits = offset + (encoding >> 16 & 0xFF), encoding & 0xFF
            members.append(Member(types._string(words[at]), type, offset, bits))
        return tuple(members)

    @cached_property
    def fields(self) -> Mapping[str, Member]:
        """The members by name, those of anonymous members among them, as C sees them."""
        found: dict[str, Member] = {}
        pending = [(iter(self.members), 0)]
        seen = 0
        while pending:
            members, base = pending[-1]
            member = next(members, None)
            if member is None:
                pending.pop()
                continue
            seen += 1
            if seen > _MAX_FIELDS or len(pending) > _DEPTH:
                raise BtfError(f"{self} holds itself")
            if member.name:
                found.setdefault(member.name, member._replace(bit_offset=base + member.bit_offset))
            else:
                pending.append((iter(member.type.stripped.members), base + member.bit_offset))
        return MappingProxyType(found)

    @cached_property
    def values(self) -> Mapping[str, int]:
        """The constants of an enum by name; empty for other types."""
        words, types = self.types._words, self.types
        found = {}
        if self.kind is Kind.ENUM:
            for at in range(self._at, self._at + 2 * self._vlen, 2):
                value = words[at + 1]
                found[types._string(words[at])] = _signed(value, 32) if self._flag else value
        elif self.kind is Kind.ENUM64:
            for at in range(self._at, self._at + 3 * self._vlen, 3):
                value = words[at + 1] | words[at + 2] << 32
                found[types._string(words[at])] = _signed(value, 64) if self._flag else value
        return MappingProxyType(found)

    @cached_property
    def _parameters(self) -> tuple[tuple[str, int], ...]:
        if self.kind is Kind.FUNC:
            return self.target._parameters if self.target.kind is Kind.FUNC_PROTO else ()
        if self.kind is not Kind.FUNC_PROTO:
            return ()
        words = self.types._words
        places = range(self._at, self._at + 2 * self._vlen, 2)
        return tuple((self.types._string(words[at]), words[at + 1]) for at in places)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of a function or a prototype, without the dots of a variadic one."""
        given = self._parameters[:-1] if self.variadic else self._parameters
        return tuple(Parameter(name, self.types._type(id)) for name, id in given)

    @property
    def variadic(self) -> bool:
        """Whether a function takes more arguments than it has parameters."""
        return bool(self._parameters) and self._parameters[-1] == ("", 0)

    def pointer(self) -> Type:
        """The type of a pointer to this one."""
        return self.types._derived(Kind.PTR, self)

    def array(self, count: int) -> Type:
        """The type of an array of ``count`` of this one."""
        return self.types._derived(Kind.ARRAY, self, count)

    def declare(self, name: str = "") -> str:
        """How C declares ``name`` to be of this type; without a name, the type alone."""
        return self._declare(name, iter(range(_WORDINESS)))

    def _declare(self, name: str, steps: Iterator[int]) -> str:
        if next(steps, None) is None:
            raise BtfError(f"type {self.id} is made of itself")
        gap = " " if name and name[0] not in "[" else ""
        match self.kind:
            case Kind.VOID:
                return "void" + gap + name
            case Kind.PTR:
                if self.target.kind in (Kind.ARRAY, Kind.FUNC_PROTO):
                    return self.target._declare(f"(*{name})", steps)
                return self.target._declare("*" + name, steps)
            case Kind.ARRAY:
                return self.target._declare(f"{name}[{self.count or ''}]", steps)
            case Kind.FUNC_PROTO:
                given = [p.type._declare(p.name, steps) for p in self.parameters]
                given += ["..."] if self.variadic else []
                return self.target._declare(f"{name}({', '.join(given) or 'void'})", steps)
            case Kind.FUNC | Kind.VAR:
                return self.target._declare(name or self.name, steps)
            case Kind.TYPE_TAG | Kind.DECL_TAG:
                return self.target._declare(name, steps)
            case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT:
                word = _QUALIFIERS[self.kind]
                if self.target.kind is Kind.PTR:  # const of the pointer, not of what it points to
                    return self.target._declare(word + gap + name, steps)
                return f"{word} {self.target._declare(name, steps)}"
            case Kind.FWD:
                tag = "union " if self._flag else "struct "
            case _:
                tag = _TAGS.get(self.kind, "")
        return tag + (self.name or "{...}") + gap + name

    def __str__(self) -> str:
        return self.declare()

    def __repr__(self) -> str:
        return f"<{self.kind.name} {self.id}: {self}>"


class Types:
    """The types in a BTF blob.

    ``types["struct klp_patch"]`` finds a type by the name C knows it by: ``struct``, ``union`` and
    ``enum`` with their tags, typedefs and basic types without, pointers to them with ``*``.
    """

    def __init__(self, blob: bytes) -> None:
        """Raises BtfError when ``blob`` is not BTF."""
        self._located: dict[tuple[Type, str], tuple[int, Type]] = {}
        if len(blob) < _HEADER.size:
            raise BtfError("too short to be BTF")
        magic, version, _, hdr_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
        if magic == _MAGIC_BIG_ENDIAN:
            raise BtfError("BTF of a big-endian machine")
        if magic != _MAGIC:
            raise BtfError(f"not BTF: it begins with {magic:#06x}, not {_MAGIC:#06x}")
        if version != 1:
            raise BtfError(f"BTF of version {version}; only 1 is known")
        if hdr_len < _HEADER.size or hdr_len > len(blob):
            raise BtfError("the BTF header has no sensible length")
        room = len(blob) - hdr_len
        if type_off % 4 or type_len % 4 or type_off + type_len > room:
            raise BtfError("the BTF types are not within the blob")
        if str_off + str_len > room:
            raise BtfError("the BTF strings are not within the blob")
        begin = hdr_len + type_off
        self._words = memoryview(blob)[begin : begin + type_len].cast("I")
        begin = hdr_len + str_off
        self._strings = bytes(blob[begin : begin + str_len])
        if self._strings[:1] != b"\0" or self._strings[-1:] != b"\0":
            raise BtfError("the BTF strings do not begin and end with a NUL")
        self._void = Type(self, Kind.VOID, id=0)
        self._decoded: dict[int, Type] = {0: self._void}
        self._made: dict[tuple[Kind, Type, int], Type] = {}
        self._named: dict[Kind, dict[str, int]] = {}
        self._by_name_off: tuple[dict[int, int], ...] = tuple({} for _ in Kind)
        self._places = self._scan()

    def _scan(self) -> list[int]:
        """Where each type begins, in words; on the way, who has which name."""
        words, end = self._words, len(self._words)
        sizes, named = _WORDS, self._by_name_off
        places = [0]  # void is nowhere
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

    def __len__(self) -> int:
        """The number of types, void included."""
        return len(self._places)

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise BtfError(f"a name at {offset:#x} is outside the BTF strings")
        return self._strings[offset:end].decode("utf-8", "replace")

    def _type(self, id: int) -> Type:
        type = self._decoded.get(id)
        if type is None:
            if id >= len(self._places):
                raise BtfError(f"there is no type {id}")
            at = self._places[id]
            name_off, info, size_or_type = self._words[at : at + 3]
            type = self._decoded[id] = Type(
                self, _KINDS[info >> 24 & 0x1F], id=id, at=at + 3, name_off=name_off, info=info,
                size_or_type=size_or_type,
            )  # fmt: skip
        return type

    def _derived(self, kind: Kind, target: Type, count: int = 0) -> Type:
        type = self._made.get((kind, target, count))
        if type is None:
            type = Type(self, kind, target=target, count=count)
            self._made[kind, target, count] = type
        return type

    def _defined(self, declaration: Type) -> Type:
        kind = Kind.UNION if declaration._flag else Kind.STRUCT
        id = self._names(kind).get(declaration.name)
        return declaration if id is None else self._type(id)

    def _names(self, kind: Kind) -> dict[str, int]:
        names = self._named.get(kind)
        if names is None:
            names = self._named[kind] = {}
            for offset, id in self._by_name_off[kind].items():
                names.setdefault(self._string(offset), id)
        return names

    def _find(self, name: str, *kinds: Kind) -> Type | None:
        for kind in kinds:
            id = self._names(kind).get(name)
            if id is not None:
                return self._type(id)
        return None

    def get(self, name: str) -> Type | None:
        """The type of that name or None; a definition rather than a declaration."""
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
        return type if type is not None and type._flag == union else None

    def __getitem__(self, name: str) -> Type:
        """The type of that name. Raises LookupError."""
        type = self.get(name)
        if type is None:
            raise LookupError(f"this kernel has no type '{name}'")
        return type

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[Type]:
        """Every type in the order of the blob, void first."""
        return map(self._type, range(len(self._places)))

    def function(self, name: str) -> Type | None:
        """The function of that name: its ``target`` is the prototype; None when not in the blob."""
        return self._find(name, Kind.FUNC)

    def variable(self, name: str) -> Type | None:
        """The type of a global variable, None when it is not in the blob."""
        type = self._find(name, Kind.VAR)
        return None if type is None else type.target

    def functions(self) -> Iterator[str]:
        """The names of all functions in the blob."""
        return iter(self._names(Kind.FUNC))

    def constant(self, name: str) -> int:
        """The value of an enumeration constant (``MODULE_STATE_LIVE``). Raises LookupError."""
        try:
            return self._constants[name]
        except KeyError:
            raise LookupError(f"this kernel has no constant '{name}'") from None

    @cached_property
    def _constants(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for id, at in enumerate(self._places):
            if id and self._words[at + 1] >> 24 & 0x1F in _ENUMS:
                for name, value in self._type(id).values.items():
                    found.setdefault(name, value)
        return found

    def sizeof(self, name: str) -> int:
        """The size of a type in bytes. Raises LookupError."""
        return self[name].size

    def offsetof(self, name: str, path: str) -> int:
        """Bytes from the start of a type to what ``path`` (``"a.b[3].c"``) names in it.
        Raises LookupError when there is no such type or member, BtfError for bitfields."""
        return self.locate(self[name], path)[0]

    def locate(self, type: Type, path: str) -> tuple[int, Type]:
        """The offset in bytes and the type of what ``path`` names in ``type``, as `offsetof`."""
        found = self._located.get((type, path))
        if found is None:
            found = self._located[type, path] = self._locate(type, path)
        return found

    def _locate(self, type: Type, path: str) -> tuple[int, Type]:
        offset, at = 0, 0
        while at < len(path):
            step = _STEP.match(path, at)
            if step is None:
                raise LookupError(f"'{path}' names no member")
            at = step.end()
            inner = type.stripped
            if step[2]:
                if inner.kind is not Kind.ARRAY:
                    raise LookupError(f"{type} is no array, in '{path}'")
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


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
