# SPDX-License-Identifier: GPL-2.0-or-later
"""The views of guest memory: `Struct`, `Array` and `Pointer`.

`klpfs.machine.structs.classes` derives a class from one of these for each C type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from klpfs.machine.btf import BtfError, Kind, Type
from klpfs.machine.memory import PAGE_SIZE, PageFault
from klpfs.machine.structs.codecs import Codec
from klpfs.machine.structs.plain import U64, as_text

if TYPE_CHECKING:
    from klpfs.machine.structs.space import TypedMemory

_MANGLED = re.compile(r"_[A-Za-z]\w*?(?=__)")


class View:
    """A C object at an address."""

    __slots__ = ("address_",)
    address_: int
    space_: TypedMemory
    type_: Type

    def __init__(self, address: int) -> None:
        self.address_ = address

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same address and the same type."""
        if not isinstance(other, View):
            return NotImplemented
        return self.address_ == other.address_ and self.type_ is other.type_

    def __hash__(self) -> int:
        return hash((self.address_, self.type_))

    def bytes_(self) -> bytes:
        """Return the current content of the object."""
        return self.space_.memory.read(self.address_, self.type_.size)


class Struct(View):
    """A struct or union at an address. Its members are attributes.

    Integers, enums and booleans read as those of Python, nested structs and arrays as views,
    pointers as `Pointer`. Setting a member stores the value, converted as in C. A view stored
    in a pointer member stores its address; a view stored in a struct member is copied.

    A member that this kernel's struct lacks reads as `TypedMemory.missing_members` says; without
    an entry there it raises AttributeError.
    """

    __slots__ = ()
    _codecs: Mapping[str, tuple[int, Codec]]

    if TYPE_CHECKING:  # the members become properties of a class for each C type, see classes.py

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        plain = unmangled(name, self._codecs)
        if plain is not None:
            return getattr(self, plain)
        try:
            return self.space_.missing_members[str(self.type_)][name]
        except KeyError:
            text = f"{self.type_} has no member '{name}'"
            raise AttributeError(text, name=name, obj=self) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._codecs]

    def __repr__(self) -> str:
        return f"({self.type_} *){self.address_:#x} = {_show(self, 0)}"

    def member_address_(self, path: str) -> int:
        """Return the address of a member (``"objs[1].func_list"``). Raise LookupError."""
        return self.address_ + self.space_.types.locate(self.type_, path)[0]


class Array(View):
    """An array at an address. A flexible array has length 0 and accepts any index."""

    __slots__ = ()
    _count: int
    _codec: Codec
    _step: int

    def __len__(self) -> int:
        return self._count

    def _place(self, index: int) -> int:
        if self._count:
            if not -self._count <= index < self._count:
                raise IndexError(f"{self.type_} has no element {index}")
            index %= self._count
        return self.address_ + index * self._step

    def __getitem__(self, index: int) -> Any:
        return self._codec.load(self._place(index))

    def __setitem__(self, index: int, value: Any) -> None:
        self._codec.store(self._place(index), value)

    def __iter__(self) -> Iterator[Any]:
        load, step = self._codec.load, self._step
        for place in range(self.address_, self.address_ + self._count * step, step or 1):
            yield load(place)

    def string(self) -> str:
        """Return the text in an array of char, up to its first NUL."""
        if not self._count:
            return self.space_.read_string(self.address_)
        return as_text(self.bytes_().split(b"\0", 1)[0])

    def __repr__(self) -> str:
        return f"({self.type_}){self.address_:#x} = {_show(self, 0)}"


class Pointer(int):
    """An address with a type. The members of the struct that it points to are attributes.

    As a number it is the address: comparison, truth value and arithmetic (in bytes) are those
    of an integer.
    """

    __slots__ = ()
    space_: TypedMemory
    type_: Type
    """The type it points to, with typedefs as declared."""

    def __getitem__(self, index: int) -> Any:
        """Return ``p[index]``; ``p[0]`` is ``*p`` in C. Raise TypeError for ``void *``."""
        codec, step = self._pointee_()
        return codec.load(int(self) + index * step)

    def __setitem__(self, index: int, value: Any) -> None:
        codec, step = self._pointee_()
        codec.store(int(self) + index * step, value)

    def _pointee_(self) -> tuple[Codec, int]:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        offset, codec = self._member_(name)
        return codec.load(int(self) + offset)

    def __setattr__(self, name: str, value: Any) -> None:
        offset, codec = self._member_(name)
        codec.store(int(self) + offset, value)

    def _member_(self, name: str) -> tuple[int, Codec]:
        target = self.type_.stripped
        if not target.is_compound:
            raise AttributeError(
                f"{self.type_.pointer()} does not point to a struct: it has no '{name}'"
            )
        codecs = self.space_.classes.struct(target)._codecs
        found = codecs.get(name) or codecs.get(unmangled(name, codecs) or "")
        if found is None:
            raise AttributeError(f"{target} has no member '{name}'", name=name, obj=self)
        return found

    def string(self, limit: int = PAGE_SIZE) -> str:
        """Return the NUL-terminated text it points to, at most ``limit`` bytes."""
        return self.space_.read_string(int(self), limit)

    def __repr__(self) -> str:
        return f"({self.type_.pointer()}){int(self):#x}"

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


def store_mangled(view: Struct, name: str, value: Any) -> None:
    """Set an attribute of a struct that has members with two leading underscores."""
    try:
        object.__setattr__(view, name, value)
    except AttributeError:
        plain = unmangled(name, view._codecs)
        if plain is None:
            raise
        object.__setattr__(view, plain, value)


def unmangled(name: str, members: Mapping[str, Any]) -> str | None:
    """Return the member that a name mangled by Python means, or None.

    Inside the class ``TheClass``, Python turns ``task.__state`` into ``task._TheClass__state``.
    """
    for match in _MANGLED.finditer(name):
        if name[match.end() :] in members:
            return name[match.end() :]
    return None


def address_of(value: Any) -> int:
    """Return the number to store in a pointer: the address of a view, 0 for None."""
    if isinstance(value, View):
        return value.address_
    return 0 if value is None else cast(int, value) & U64


# -- text -----------------------------------------------------------------------------------------

_UNREADABLE = (PageFault, BtfError, TypeError)
_SHOWN_DEPTH, _SHOWN_ELEMENTS = 3, 8


def is_byte(ctype: Type) -> bool:
    """Return whether a type is an integer of one byte, as ``char`` is."""
    return ctype.kind is Kind.INT and ctype.size == 1


def _show(value: Any, depth: int) -> str:
    """Return a value in the format of drgn; an error replaces a part that cannot be read."""
    try:
        if isinstance(value, Struct):
            if depth > _SHOWN_DEPTH:
                return "{...}"
            pad = "\t" * (depth + 1)
            lines = [
                f"{pad}.{name} = {_show_member(value, name, depth + 1)},\n"
                for name in value._codecs
            ]
            return "{\n" + "".join(lines) + "\t" * depth + "}"
        if isinstance(value, Array):
            if is_byte(value.type_.target.stripped):
                return '"' + value.string().encode("unicode_escape").decode() + '"'
            shown = [_show(value[i], depth + 1) for i in range(min(len(value), _SHOWN_ELEMENTS))]
            return "{ " + ", ".join(shown + ["..."] * (len(value) > len(shown))) + " }"
        if isinstance(value, Pointer):
            return f"{int(value):#x}"
    except _UNREADABLE as error:
        return f"<{error}>"
    return str(value)


def _show_member(view: Struct, name: str, depth: int) -> str:
    try:
        value = getattr(view, name)
    except _UNREADABLE as error:
        return f"<{error}>"
    member = view.type_.fields[name].type
    if isinstance(value, Pointer) and value and is_byte(value.type_.stripped):
        try:
            return f'{int(value):#x} "{value.string(64)}"'
        except PageFault:  # a char pointer that cannot be read is usually not set yet
            return f"{int(value):#x}"
    if member.stripped.kind in (Kind.ENUM, Kind.ENUM64):
        names = {number: constant for constant, number in member.stripped.values.items()}
        return names.get(value, str(value))
    return _show(value, depth)
