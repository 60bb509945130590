# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python class of each C type: views whose members are properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from klpfs.machine.btf import Kind, Type
from klpfs.machine.structs import codecs
from klpfs.machine.structs.codecs import Codec
from klpfs.machine.structs.views import (
    Array,
    Pointer,
    Struct,
    View,
    address_of,
    is_byte,
    store_mangled,
)

if TYPE_CHECKING:
    from klpfs.machine.structs.space import TypedMemory


class Classes:
    """The classes and codecs of the types of one `TypedMemory`, made when they are first used."""

    def __init__(self, space: TypedMemory) -> None:
        self._space = space
        self._memory = space.memory
        self._codecs: dict[Type, Codec] = {}
        self._structs: dict[Type, type[Struct]] = {}
        self._pointers: dict[Type, type[Pointer]] = {}

    def view(self, ctype: Type) -> type[View]:
        """Return the class of a struct, union or array type. Raise TypeError for another."""
        stripped = ctype.stripped
        if stripped.is_compound:
            return self.struct(stripped)
        if stripped.kind is Kind.ARRAY:
            return self._array(stripped)
        raise TypeError(f"{ctype} is not a struct, union or array")

    def struct(self, ctype: Type) -> type[Struct]:
        """Return the class of a struct or union type without typedefs and qualifiers."""
        made = self._structs.get(ctype)
        if made is None:
            members = {
                name: (
                    m.offset,
                    codecs.bitfield(self._memory, m) if m.bit_size else self.codec(m.type),
                )
                for name, m in ctype.fields.items()
            }
            body: dict[str, Any] = {name: _member(*place) for name, place in members.items()}
            body |= {"__slots__": (), "space_": self._space, "type_": ctype, "_codecs": members}
            if any(name.startswith("__") for name in members):
                body["__setattr__"] = store_mangled
            made = cast("type[Struct]", _make(str(ctype), Struct, body))
            self._structs[ctype] = made
        return made

    def pointer(self, target: Type) -> type[Pointer]:
        """Return the class of pointers to ``target``."""
        known = self._pointers.get(target)
        if known is not None:
            return known
        pointee: tuple[Codec, int] | None = None

        def find(_: Pointer) -> tuple[Codec, int]:
            nonlocal pointee
            if pointee is None:
                if target.stripped.kind in (Kind.VOID, Kind.FUNC_PROTO, Kind.FWD):
                    raise TypeError(f"a {target.pointer()} cannot be dereferenced")
                pointee = self.codec(target), target.size
            return pointee

        body: dict[str, Any] = {
            "__slots__": (), "space_": self._space, "type_": target, "_pointee_": find,
        }  # fmt: skip
        stripped = target.stripped
        if stripped.is_compound:
            for name in stripped.fields.keys() & _INT_ATTRIBUTES:
                body[name] = _dereferencing(name)
        made = self._pointers[target] = cast("type[Pointer]", _make(f"{target} *", Pointer, body))
        return made

    def _array(self, ctype: Type) -> type[Array]:
        codec, step = self.codec(ctype.target), ctype.target.size
        body = {
            "space_": self._space,
            "type_": ctype,
            "_codec": codec,
            "_step": step,
            "_count": ctype.count,
        }
        return cast("type[Array]", _make(str(ctype), Array, {"__slots__": ()} | body))

    def codec(self, ctype: Type) -> Codec:
        """Return how values of a type are read and written."""
        codec = self._codecs.get(ctype)
        if codec is None:
            codec = self._codecs[ctype] = self._new_codec(ctype)
        return codec

    def _new_codec(self, ctype: Type) -> Codec:
        stripped = ctype.stripped
        match stripped.kind:
            case Kind.INT | Kind.ENUM | Kind.ENUM64:
                return codecs.integer(self._memory, stripped)
            case Kind.FLOAT:
                return codecs.floating(self._memory, stripped)
            case Kind.PTR:
                return self._pointer_codec(stripped)
            case Kind.STRUCT | Kind.UNION:
                return self._nested_codec(stripped, lambda: self.struct(stripped))
            case Kind.ARRAY:
                return self._nested_codec(stripped, lambda: self._array(stripped))
        return codecs.unusable(ctype)

    def _pointer_codec(self, ctype: Type) -> Codec:
        read, write = self._memory.read, self._memory.write
        made: type[Pointer] | None = None

        def load(address: int) -> Pointer:
            nonlocal made
            if made is None:  # not before it is needed: every struct leads to every other
                made = self.pointer(ctype.target)
            return made(int.from_bytes(read(address, 8), "little"))

        def store(address: int, value: Any) -> None:
            write(address, address_of(value).to_bytes(8, "little"))

        return Codec(load, store)

    def _nested_codec(self, ctype: Type, make: Callable[[], type[View]]) -> Codec:
        write = self._memory.write
        made: type[View] | None = None
        is_text = ctype.kind is Kind.ARRAY and is_byte(ctype.target.stripped)

        def load(address: int) -> View:
            nonlocal made
            if made is None:
                made = make()
            return made(address)

        def store(address: int, value: Any) -> None:
            if isinstance(value, View) and value.type_ is ctype:
                write(address, value.bytes_())
                return
            if not is_text or not isinstance(value, str | bytes | bytearray):
                raise TypeError(f"{value!r} is not a {ctype}")
            data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            if len(data) > ctype.size:
                raise ValueError(f"{len(data)} bytes do not fit into {ctype}")
            write(address, bytes(data).ljust(ctype.size, b"\0"))

        return Codec(load, store)


_INT_ATTRIBUTES = frozenset(name for name in dir(int) if not name.startswith("_"))


def _make(name: str, base: type, body: dict[str, Any]) -> type:
    return type(name, (base,), body)


def _member(offset: int, codec: Codec) -> property:
    load, store = codec
    return property(
        lambda view: load(view.address_ + offset),
        lambda view, value: store(view.address_ + offset, value),
    )


def _dereferencing(name: str) -> property:
    """Return a property for a member with the name of an attribute of `int` (``real``)."""
    return property(lambda pointer: Pointer.__getattr__(pointer, name))
