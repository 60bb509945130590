# SPDX-License-Identifier: GPL-2.0-or-later
"""One C type, decoded from a BTF blob."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from klpfs.machine.btf.blob import BtfError
from klpfs.machine.btf.declare import declare
from klpfs.machine.btf.kinds import ALIASES, COMPOUND, ENUMS, SIZED, Kind

if TYPE_CHECKING:
    from klpfs.machine.btf.types import Types

_POINTER_SIZE = 8
_MAX_DEPTH = 64  # a longer chain of types is a loop
_MAX_FIELDS = 1 << 16  # the limit of BTF for one struct, here with those of anonymous members


class Member(NamedTuple):
    """A member of a struct or union.

    ``bit_offset`` counts from the start of the struct. ``bit_size`` is 0 unless it is a bitfield.
    """

    name: str
    type: Type
    bit_offset: int
    bit_size: int

    @property
    def offset(self) -> int:
        """Bytes from the start of the struct; for a bitfield, to the byte in which it begins."""
        return self.bit_offset >> 3


class Parameter(NamedTuple):
    """A parameter of a function. ``name`` may be empty."""

    name: str
    type: Type


class Type:
    """One C type. Two types are equal if they are the same object.

    A damaged blob is noticed late: every property may raise BtfError.
    """

    def __init__(
        self, types: Types, kind: Kind, *, id: int = -1, at: int = 0, name_off: int = 0,
        info: int = 0, size_or_type: int = 0, target: Type | None = None, count: int = 0,
    ) -> None:  # fmt: skip
        self.types = types
        self.kind = kind
        self.id = id
        self._blob = types.blob
        self._at = at  # the index of the word behind struct btf_type
        self._name_off = name_off
        self._vlen = info & 0xFFFF
        self._flag = bool(info >> 31)
        self._size_or_type = size_or_type
        self._target = target
        self._count = count

    @cached_property
    def name(self) -> str:
        """The name without ``struct``, empty for an anonymous type."""
        return self._blob.string(self._name_off)

    @cached_property
    def target(self) -> Type:
        """The type that this one refers to.

        This is the type behind a pointer, typedef, qualifier or tag, the element of an array, the
        return value of a prototype, the prototype of a function, the type of a variable.
        """
        if self._target is not None:
            return self._target
        if self.kind in SIZED or self.kind is Kind.VOID or self.kind is Kind.FWD:
            raise BtfError(f"{self.kind.name} refers to no other type")
        if self.kind is Kind.ARRAY:
            return self.types.by_id(self._blob.words[self._at])
        return self.types.by_id(self._size_or_type)

    @cached_property
    def stripped(self) -> Type:
        """The type without typedefs, qualifiers and type tags.

        A forward declaration becomes the definition if the blob has one.
        """
        at = self
        for _ in range(_MAX_DEPTH):
            if at.kind is Kind.FWD:
                return self.types.definition(at)
            if at.kind not in ALIASES:
                return at
            at = at.target
        raise BtfError(f"type {self.id} is an alias of itself")

    @cached_property
    def size(self) -> int:
        """The size in bytes, 0 for void. Raises BtfError for functions and mere declarations."""
        count, at = 1, self.stripped
        for _ in range(_MAX_DEPTH):
            if at.kind in SIZED:
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
        """The number of elements of an array, 0 for a flexible array."""
        if self.kind is not Kind.ARRAY or self.id < 0:
            return self._count
        return self._blob.words[self._at + 2]

    @property
    def signed(self) -> bool:
        """True for a signed integer or enum."""
        if self.kind is Kind.INT:
            return bool(self._blob.words[self._at] >> 24 & 1)
        return self._flag and self.kind in ENUMS

    @property
    def is_bool(self) -> bool:
        """True for C's ``_Bool``."""
        return self.kind is Kind.INT and bool(self._blob.words[self._at] >> 24 & 4)

    @property
    def is_compound(self) -> bool:
        """True for the definition of a struct or union."""
        return self.kind in COMPOUND

    @property
    def declares_union(self) -> bool:
        """True if a forward declaration is of a union, false if it is of a struct."""
        return self._flag

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The members of a struct or union as declared; empty for other types."""
        if self.kind not in COMPOUND:
            return ()
        members, words, types = [], self._blob.words, self.types
        for at in range(self._at, self._at + 3 * self._vlen, 3):
            offset, bits, type = words[at + 2], 0, types.by_id(words[at + 1])
            if self._flag:
                offset, bits = offset & 0xFFFFFF, offset >> 24
            elif (base := type.stripped).kind is Kind.INT:
                # The older encoding of a bitfield: an integer type that has its offset and size.
                encoding = words[base._at]
                if encoding & 0xFF != base._size_or_type * 8 or encoding >> 16 & 0xFF:
                    offset, bits = offset + (encoding >> 16 & 0xFF), encoding & 0xFF
            members.append(Member(self._blob.string(words[at]), type, offset, bits))
        return tuple(members)

    @cached_property
    def fields(self) -> Mapping[str, Member]:
        """The members by name, with those of anonymous members, as C code can name them."""
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
            if seen > _MAX_FIELDS or len(pending) > _MAX_DEPTH:
                raise BtfError(f"{self} contains itself")
            if member.name:
                found.setdefault(member.name, member._replace(bit_offset=base + member.bit_offset))
            else:
                pending.append((iter(member.type.stripped.members), base + member.bit_offset))
        return MappingProxyType(found)

    @cached_property
    def values(self) -> Mapping[str, int]:
        """The constants of an enum by name; empty for other types."""
        words, string = self._blob.words, self._blob.string
        found = {}
        if self.kind is Kind.ENUM:
            for at in range(self._at, self._at + 2 * self._vlen, 2):
                value = words[at + 1]
                found[string(words[at])] = _signed(value, 32) if self._flag else value
        elif self.kind is Kind.ENUM64:
            for at in range(self._at, self._at + 3 * self._vlen, 3):
                value = words[at + 1] | words[at + 2] << 32
                found[string(words[at])] = _signed(value, 64) if self._flag else value
        return MappingProxyType(found)

    @cached_property
    def _parameters(self) -> tuple[tuple[str, int], ...]:
        if self.kind is Kind.FUNC:
            return self.target._parameters if self.target.kind is Kind.FUNC_PROTO else ()
        if self.kind is not Kind.FUNC_PROTO:
            return ()
        words = self._blob.words
        places = range(self._at, self._at + 2 * self._vlen, 2)
        return tuple((self._blob.string(words[at]), words[at + 1]) for at in places)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of a function or a prototype, without the ``...`` of a variadic one."""
        given = self._parameters[:-1] if self.variadic else self._parameters
        return tuple(Parameter(name, self.types.by_id(id)) for name, id in given)

    @property
    def variadic(self) -> bool:
        """True for a function or prototype with ``...``."""
        return bool(self._parameters) and self._parameters[-1] == ("", 0)

    def pointer(self) -> Type:
        """Return the type of a pointer to this type."""
        return self.types.derived(Kind.PTR, self)

    def array(self, count: int) -> Type:
        """Return the type of an array of ``count`` elements of this type."""
        return self.types.derived(Kind.ARRAY, self, count)

    def declare(self, name: str = "") -> str:
        """Return the C declaration of ``name`` as this type; without a name, the type alone."""
        return declare(self, name)

    def __str__(self) -> str:
        return self.declare()

    def __repr__(self) -> str:
        return f"<{self.kind.name} {self.id}: {self}>"


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
