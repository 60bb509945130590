# SPDX-License-Identifier: GPL-2.0-or-later
"""C structs in guest memory, read and written like Python objects.

    patch = space.view("struct klp_patch", address)
    patch.enabled = True
    patch.objs[0].funcs[0].old_name.string()

A view holds an address and no data: every access goes to guest memory. Names that are not C members
end in an underscore (``view.address_``), so that no member is hidden.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from klpfs.machine import limits
from klpfs.machine.btf import BtfError, Kind, Member, Type, Types
from klpfs.machine.memory import PAGE_SIZE, PageFault

_U64 = (1 << 64) - 1

# include/linux/poison.h with x86-64's CONFIG_ILLEGAL_POINTER_VALUE
LIST_POISON1 = 0xDEAD000000000100
LIST_POISON2 = 0xDEAD000000000122

_INTEGERS = {
    (1, False): "<B", (1, True): "<b", (2, False): "<H", (2, True): "<h",
    (4, False): "<I", (4, True): "<i", (8, False): "<Q", (8, True): "<q",
}  # fmt: skip
_FLOATS = {2: "<e", 4: "<f", 8: "<d"}
_MANGLED = re.compile(r"_[A-Za-z]\w*?(?=__)")


class MemoryLike(Protocol):
    """What views need of a memory: `klpfs.machine.memory.Memory` has it."""

    def read(self, addr: int, size: int, /) -> bytes:
        """``size`` bytes at ``addr``."""

    def write(self, addr: int, data: bytes, /) -> None:
        """Store ``data`` at ``addr``."""


class _Codec(NamedTuple):
    """How values of a type, or a bitfield, are read and written at an address."""

    load: Callable[[int], Any]
    store: Callable[[int, Any], None]


class Field(NamedTuple):
    """A member of a struct by its path, wherever it is in that struct."""

    get: Callable[[Struct], Any]
    set: Callable[[Struct, Any], None]


class _View:
    """Something at an address."""

    __slots__ = ("address_",)
    address_: int
    space_: Space
    type_: Type

    def __init__(self, address: int) -> None:
        self.address_ = address

    def __eq__(self, other: object) -> bool:
        """The same place seen as the same type."""
        if not isinstance(other, _View):
            return NotImplemented
        return self.address_ == other.address_ and self.type_ is other.type_

    def __hash__(self) -> int:
        return hash((self.address_, self.type_))

    def bytes_(self) -> bytes:
        """What is there now."""
        return self.space_.memory.read(self.address_, self.type_.size)


class Struct(_View):
    """A struct or union at an address. Its members are attributes:

    integers, enums and booleans are Python's, nested structs and arrays are views, pointers are
    `Pointer`. Setting a member stores it, converted as C would; a view set into a pointer member
    stores its address, a view set into a struct member is copied.
    """

    __slots__ = ()
    _codecs: Mapping[str, tuple[int, _Codec]]

    if TYPE_CHECKING:  # the members become properties of a class per C type, see Space._struct

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        plain = _unmangled(name, self._codecs)
        if plain is not None:
            return getattr(self, plain)
        try:
            return self.space_.absent[str(self.type_)][name]
        except KeyError:
            text = f"{self.type_} has no member '{name}'"
            raise AttributeError(text, name=name, obj=self) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._codecs]

    def __repr__(self) -> str:
        return f"({self.type_} *){self.address_:#x} = {_show(self, 0)}"

    def member_address_(self, path: str) -> int:
        """The address of a member (``"objs[1].func_list"``). Raises LookupError."""
        return self.address_ + self.space_.types.locate(self.type_, path)[0]


class Array(_View):
    """An array at an address. A flexible array has length 0 and any index."""

    __slots__ = ()
    _count: int
    _codec: _Codec
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
        """The text in an array of char, up to its first NUL."""
        if not self._count:
            return self.space_.read_string(self.address_)
        return _text(self.bytes_().split(b"\0", 1)[0])

    def __repr__(self) -> str:
        return f"({self.type_}){self.address_:#x} = {_show(self, 0)}"


class Pointer(int):
    """An address that knows what is there. As a number it is the address: comparison, truth and
    arithmetic are those of an integer, in bytes."""

    __slots__ = ()
    space_: Space
    type_: Type
    """What it points to, with typedefs as declared."""

    def __getitem__(self, index: int) -> Any:
        """``p[index]``; ``p[0]`` is what it points to. Raises TypeError for ``void *``."""
        codec, step = self._pointee_()
        return codec.load(int(self) + index * step)

    def __setitem__(self, index: int, value: Any) -> None:
        codec, step = self._pointee_()
        codec.store(int(self) + index * step, value)

    def _pointee_(self) -> tuple[_Codec, int]:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        offset, codec = self._member_(name)
        return codec.load(int(self) + offset)

    def __setattr__(self, name: str, value: Any) -> None:
        offset, codec = self._member_(name)
        codec.store(int(self) + offset, value)

    def _member_(self, name: str) -> tuple[int, _Codec]:
        target = self.type_.stripped
        if not target.is_compound:
            raise AttributeError(f"{self.type_.pointer()} points to no struct: no '{name}' in it")
        codecs = self.space_._struct(target)._codecs
        found = codecs.get(name) or codecs.get(_unmangled(name, codecs) or "")
        if found is None:
            raise AttributeError(f"{target} has no member '{name}'", name=name, obj=self)
        return found

    def string(self, limit: int = PAGE_SIZE) -> str:
        """The NUL-terminated text there, at most ``limit`` bytes of it."""
        return self.space_.read_string(int(self), limit)

    def __repr__(self) -> str:
        return f"({self.type_.pointer()}){int(self):#x}"

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


def _store_mangled(view: Struct, name: str, value: Any) -> None:
    try:
        object.__setattr__(view, name, value)
    except AttributeError:
        plain = _unmangled(name, view._codecs)
        if plain is None:
            raise
        object.__setattr__(view, plain, value)


def _unmangled(name: str, members: Mapping[str, Any]) -> str | None:
    """``task.__state`` inside a Python class arrives as ``_TheClass__state``: undo that."""
    for match in _MANGLED.finditer(name):
        if name[match.end() :] in members:
            return name[match.end() :]
    return None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _address(value: Any) -> int:
    """The number to store in a pointer."""
    if isinstance(value, _View):
        return value.address_
    return 0 if value is None else cast(int, value) & _U64


class Space:
    """Typed access to a memory. Addresses may be given as numbers, `Pointer` or views.

    Whatever the memory raises for an address that is not there (`klpfs.machine.memory.PageFault`) comes
    through.
    """

    def __init__(self, types: Types, memory: MemoryLike) -> None:
        self.types = types
        self.memory = memory
        self.absent: Mapping[str, Mapping[str, Any]] = {}
        """Members that other versions of a struct have, and what they read as here: by the name of
        the struct, then of the member."""
        self._codecs: dict[Type, _Codec] = {}
        self._structs: dict[Type, type[Struct]] = {}
        self._pointers: dict[Type, type[Pointer]] = {}
        self._views: dict[str | Type, type[_View]] = {}

    # -- views ------------------------------------------------------------------------------------

    def view(self, name: str | Type, address: int | _View) -> Any:
        """What is at ``address`` as a struct, union or array of that type: a `Struct`, an `Array`.
        Raises LookupError for a type that is not there, TypeError for one that is no struct."""
        made = self._views.get(name)
        if made is None:
            ctype = self.types[name] if isinstance(name, str) else name
            made = self._views[name] = self._view_class(ctype)
        return made(_address(address))

    def _view_class(self, ctype: Type) -> type[_View]:
        stripped = ctype.stripped
        if stripped.is_compound:
            return self._struct(stripped)
        if stripped.kind is Kind.ARRAY:
            return self._array_class(stripped)
        raise TypeError(f"{ctype} is no struct, union or array")

    def load(self, name: str | Type, address: int | _View) -> Any:
        """The value of any type at ``address``: what a member of that type reads as."""
        ctype = self.types[name] if isinstance(name, str) else name
        return self._codec(ctype).load(_address(address))

    def store(self, name: str | Type, address: int | _View, value: Any) -> None:
        """Store a value of any type at ``address``."""
        ctype = self.types[name] if isinstance(name, str) else name
        self._codec(ctype).store(_address(address), value)

    def array(self, name: str | Type, address: int | _View, count: int) -> Array:
        """``count`` elements of a ctype, one after the other from ``address``."""
        ctype = self.types[name] if isinstance(name, str) else name
        return cast(Array, self.view(ctype.array(count), address))

    def pointer(self, name: str | Type, address: int | _View) -> Pointer:
        """``address`` as a pointer to that type."""
        ctype = self.types[name] if isinstance(name, str) else name
        return self._pointer_class(ctype)(_address(address))

    def field(self, name: str, path: str) -> Field:
        """What ``path`` (``"a.b[3].c"``) names in the structs of that type. Raises LookupError if it is
        not there, BtfError for a bitfield."""
        offset, ctype = self.types.locate(self.types[name], path)
        load, store = self._codec(ctype)
        return Field(
            lambda view: load(view.address_ + offset),
            lambda view, value: store(view.address_ + offset, value),
        )

    def container_of(self, address: int | _View, name: str, member: str) -> Any:
        """The struct of that type whose ``member`` is at ``address``."""
        return self.view(name, _address(address) - self.types.offsetof(name, member))

    # -- plain memory -----------------------------------------------------------------------------

    def read_u64(self, address: int) -> int:
        """An unsigned 64-bit integer."""
        return int.from_bytes(self.memory.read(address, 8), "little")

    def read_u32(self, address: int) -> int:
        """An unsigned 32-bit integer."""
        return int.from_bytes(self.memory.read(address, 4), "little")

    def read_s32(self, address: int) -> int:
        """A signed 32-bit integer."""
        return int.from_bytes(self.memory.read(address, 4), "little", signed=True)

    def read_u8(self, address: int) -> int:
        """A byte."""
        return self.memory.read(address, 1)[0]

    def write_u64(self, address: int, value: int) -> None:
        """Store 64 bits; more are cut off."""
        self.memory.write(address, (value & _U64).to_bytes(8, "little"))

    def write_u32(self, address: int, value: int) -> None:
        """Store 32 bits; more are cut off."""
        self.memory.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    write_s32 = write_u32

    def write_u8(self, address: int, value: int) -> None:
        """Store a byte; more bits are cut off."""
        self.memory.write(address, bytes((value & 0xFF,)))

    def read_string(self, address: int, limit: int = PAGE_SIZE) -> str:
        """The text up to a NUL, at most ``limit`` bytes. Reads no page beyond the one that holds
        the NUL. Bytes that are not UTF-8 come as surrogates (``surrogateescape``)."""
        return _text(self.read_cstring(address, limit))

    def read_cstring(self, address: int, limit: int = PAGE_SIZE) -> bytes:
        """The same as `read_string`, as bytes."""
        parts = []
        while limit > 0:
            take = min(limit, PAGE_SIZE - address % PAGE_SIZE, 256)
            part = self.memory.read(address, take)
            end = part.find(b"\0")
            if end >= 0:
                parts.append(part[:end])
                break
            parts.append(part)
            address, limit = address + take, limit - take
        return b"".join(parts)

    # -- struct list_head, include/linux/list.h ---------------------------------------------------

    def init_list_head(self, head: int | _View) -> None:
        """``INIT_LIST_HEAD``"""
        at = _address(head)
        self.write_u64(at, at)
        self.write_u64(at + 8, at)

    def list_empty(self, head: int | _View) -> bool:
        """Whether a list has no entry."""
        at = _address(head)
        return self.read_u64(at) == at

    def list_is_singular(self, head: int | _View) -> bool:
        """Whether a list has exactly one entry."""
        at = _address(head)
        following = self.read_u64(at)
        return following != at and following == self.read_u64(at + 8)

    def _list_insert(self, new: int, prev: int, following: int) -> None:
        # As list_add_rcu does: a reader sees the list without the entry, or with it.
        self.write_u64(new, following)
        self.write_u64(new + 8, prev)
        self.write_u64(prev, new)
        self.write_u64(following + 8, new)

    def list_add(self, new: int | _View, head: int | _View) -> None:
        """Insert ``new`` (the address of its list_head) at the front."""
        at = _address(head)
        self._list_insert(_address(new), at, self.read_u64(at))

    def list_add_tail(self, new: int | _View, head: int | _View) -> None:
        """Insert ``new`` (the address of its list_head) at the end."""
        at = _address(head)
        self._list_insert(_address(new), self.read_u64(at + 8), at)

    def _list_unlink(self, at: int) -> None:
        following, prev = self.read_u64(at), self.read_u64(at + 8)
        self.write_u64(following + 8, prev)
        self.write_u64(prev, following)

    def list_del(self, entry: int | _View) -> None:
        """Take an entry out of its list and poison its pointers."""
        at = _address(entry)
        self._list_unlink(at)
        self.write_u64(at, LIST_POISON1)
        self.write_u64(at + 8, LIST_POISON2)

    def list_del_rcu(self, entry: int | _View) -> None:
        """Take an entry out; whoever stands on it can still go on (include/linux/rculist.h)."""
        at = _address(entry)
        self._list_unlink(at)
        self.write_u64(at + 8, LIST_POISON2)

    def list_del_init(self, entry: int | _View) -> None:
        """Take an entry out and make it a list of its own."""
        self._list_unlink(_address(entry))
        self.init_list_head(entry)

    def list_entries(self, head: int | _View, name: str, member: str) -> Iterator[Any]:
        """The structs on a list, through their ``member``. The entry that was yielded last may be
        taken out, as in ``list_for_each_entry_safe``."""
        at, offset = _address(head), self.types.offsetof(name, member)
        entry = self.read_u64(at)
        for _ in range(limits.LIST):
            if entry == at:
                return
            following = self.read_u64(entry)
            yield self.view(name, entry - offset)
            entry = following
        raise limits.Endless(f"the list at {at:#x}")

    def list_first_entry(self, head: int | _View, name: str, member: str) -> Any:
        """The first struct on a list, None when it is empty (``list_first_entry_or_null``)."""
        return next(self.list_entries(head, name, member), None)

    # -- struct hlist_head, hlist_node ------------------------------------------------------------

    def hlist_empty(self, head: int | _View) -> bool:
        """Whether a hash bucket has no entry."""
        return not self.read_u64(_address(head))

    def hlist_add_head(self, node: int | _View, head: int | _View) -> None:
        """Insert ``node`` (the address of its hlist_node) at the front of a bucket."""
        at, bucket = _address(node), _address(head)
        first = self.read_u64(bucket)
        self.write_u64(at, first)
        self.write_u64(at + 8, bucket)
        self.write_u64(bucket, at)
        if first:
            self.write_u64(first + 8, at)

    def hlist_del(self, node: int | _View) -> None:
        """Take a node out of its bucket and poison its pointers."""
        at = _address(node)
        following, pprev = self.read_u64(at), self.read_u64(at + 8)
        self.write_u64(pprev, following)
        if following:
            self.write_u64(following + 8, pprev)
        self.write_u64(at, LIST_POISON1)
        self.write_u64(at + 8, LIST_POISON2)

    def hlist_entries(self, head: int | _View, name: str, member: str) -> Iterator[Any]:
        """The structs in a bucket; the one yielded last may be taken out."""
        node, offset = self.read_u64(_address(head)), self.types.offsetof(name, member)
        for _ in range(limits.LIST):
            if not node:
                return
            following = self.read_u64(node)
            yield self.view(name, node - offset)
            node = following
        raise limits.Endless(f"the bucket at {_address(head):#x}")

    # -- how each type is read and written --------------------------------------------------------

    def _struct(self, ctype: Type) -> type[Struct]:
        """The Python class of a C struct; its members are properties."""
        made = self._structs.get(ctype)
        if made is None:
            codecs = {
                name: (m.offset, self._bitfield(m) if m.bit_size else self._codec(m.type))
                for name, m in ctype.fields.items()
            }
            body: dict[str, Any] = {name: _member(*place) for name, place in codecs.items()}
            body |= {"__slots__": (), "space_": self, "type_": ctype, "_codecs": codecs}
            if any(name.startswith("__") for name in codecs):
                body["__setattr__"] = _store_mangled
            made = cast("type[Struct]", _make(str(ctype), Struct, body))
            self._structs[ctype] = made
        return made

    def _array_class(self, ctype: Type) -> type[Array]:
        codec, step = self._codec(ctype.target), ctype.target.size
        body = {
            "space_": self,
            "type_": ctype,
            "_codec": codec,
            "_step": step,
            "_count": ctype.count,
        }
        return cast("type[Array]", _make(str(ctype), Array, {"__slots__": ()} | body))

    def _pointer_class(self, target: Type) -> type[Pointer]:
        known = self._pointers.get(target)
        if known is not None:
            return known
        pointee: tuple[_Codec, int] | None = None

        def find(_: Pointer) -> tuple[_Codec, int]:
            nonlocal pointee
            if pointee is None:
                if target.stripped.kind in (Kind.VOID, Kind.FUNC_PROTO, Kind.FWD):
                    raise TypeError(f"nothing can be read through a {target.pointer()}")
                pointee = self._codec(target), target.size
            return pointee

        body: dict[str, Any] = {
            "__slots__": (), "space_": self, "type_": target, "_pointee_": find,
        }  # fmt: skip
        stripped = target.stripped
        if stripped.is_compound:
            for name in stripped.fields.keys() & _INT_ATTRIBUTES:
                body[name] = _dereferencing(name)
        made = self._pointers[target] = cast("type[Pointer]", _make(f"{target} *", Pointer, body))
        return made

    def _codec(self, ctype: Type) -> _Codec:
        codec = self._codecs.get(ctype)
        if codec is None:
            codec = self._codecs[ctype] = self._new_codec(ctype)
        return codec

    def _new_codec(self, ctype: Type) -> _Codec:
        stripped = ctype.stripped
        match stripped.kind:
            case Kind.INT | Kind.ENUM | Kind.ENUM64:
                return self._integer(stripped)
            case Kind.PTR:
                return self._pointer(stripped)
            case Kind.STRUCT | Kind.UNION:
                return self._nested(stripped, lambda: self._struct(stripped))
            case Kind.ARRAY:
                return self._nested(stripped, lambda: self._array_class(stripped))
            case Kind.FLOAT if stripped.size in _FLOATS:
                return self._packed(_FLOATS[stripped.size], lambda value: value)
        return _unusable(ctype)

    def _packed(self, layout: str, convert: Callable[[Any], Any]) -> _Codec:
        read, write = self.memory.read, self.memory.write
        packed = struct.Struct(layout)
        unpack, pack, size = packed.unpack, packed.pack, packed.size

        def load(address: int) -> Any:
            return unpack(read(address, size))[0]

        def store(address: int, value: Any) -> None:
            write(address, pack(convert(value)))

        return _Codec(load, store)

    def _integer(self, ctype: Type) -> _Codec:
        read, write = self.memory.read, self.memory.write
        size, signed = ctype.size, ctype.signed
        if ctype.is_bool:
            return _Codec(
                lambda address: read(address, size) != bytes(size),
                lambda address, value: write(address, bool(value).to_bytes(size, "little")),
            )
        mask, half = (1 << size * 8) - 1, 1 << size * 8 >> 1
        if (layout := _INTEGERS.get((size, signed))) is not None:
            if signed:
                return self._packed(layout, lambda value: ((value + half) & mask) - half)
            return self._packed(layout, lambda value: value & mask)
        return _Codec(
            lambda address: int.from_bytes(read(address, size), "little", signed=signed),
            lambda address, value: write(address, (value & mask).to_bytes(size, "little")),
        )

    def _bitfield(self, member: Member) -> _Codec:
        """For an address of the byte in which the bitfield begins."""
        read, write = self.memory.read, self.memory.write
        shift, bits = member.bit_offset & 7, member.bit_size
        ctype = member.type.stripped
        size, mask = (shift + bits + 7) // 8, (1 << bits) - 1
        sign = 1 << bits >> 1 if ctype.signed else 0
        is_bool = ctype.is_bool

        def load(address: int) -> int:
            value = int.from_bytes(read(address, size), "little") >> shift & mask
            return bool(value) if is_bool else (value ^ sign) - sign

        def store(address: int, value: int) -> None:
            value = bool(value) if is_bool else value & mask
            around = int.from_bytes(read(address, size), "little") & ~(mask << shift)
            write(address, (around | value << shift).to_bytes(size, "little"))

        return _Codec(load, store)

    def _pointer(self, ctype: Type) -> _Codec:
        read, write = self.memory.read, self.memory.write
        made: type[Pointer] | None = None

        def load(address: int) -> Pointer:
            nonlocal made
            if made is None:  # not before it is needed: every struct leads to every other
                made = self._pointer_class(ctype.target)
            return made(int.from_bytes(read(address, 8), "little"))

        def store(address: int, value: Any) -> None:
            write(address, _address(value).to_bytes(8, "little"))

        return _Codec(load, store)

    def _nested(self, ctype: Type, make: Callable[[], type[_View]]) -> _Codec:
        write = self.memory.write
        made: type[_View] | None = None
        is_text = ctype.kind is Kind.ARRAY and _is_byte(ctype.target.stripped)

        def load(address: int) -> _View:
            nonlocal made
            if made is None:
                made = make()
            return made(address)

        def store(address: int, value: Any) -> None:
            if isinstance(value, _View) and value.type_ is ctype:
                write(address, value.bytes_())
                return
            if not is_text or not isinstance(value, str | bytes | bytearray):
                raise TypeError(f"{value!r} is no {ctype}")
            data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            if len(data) > ctype.size:
                raise ValueError(f"{len(data)} bytes do not fit into {ctype}")
            write(address, bytes(data).ljust(ctype.size, b"\0"))

        return _Codec(load, store)


_INT_ATTRIBUTES = frozenset(name for name in dir(int) if not name.startswith("_"))


def _make(name: str, base: type, body: dict[str, Any]) -> type:
    return type(name, (base,), body)


def _member(offset: int, codec: _Codec) -> property:
    load, store = codec
    return property(
        lambda view: load(view.address_ + offset),
        lambda view, value: store(view.address_ + offset, value),
    )


def _dereferencing(name: str) -> property:
    """For a member with the name of an attribute of `int` (``real``): the member wins."""
    return property(lambda pointer: Pointer.__getattr__(pointer, name))


def _is_byte(ctype: Type) -> bool:
    return ctype.kind is Kind.INT and ctype.size == 1


def _unusable(ctype: Type) -> _Codec:
    def refuse(*_: Any) -> Any:
        raise TypeError(f"{ctype} cannot be read or written")

    return _Codec(refuse, refuse)


# -- text for people ------------------------------------------------------------------------------

_UNREADABLE = (PageFault, BtfError, TypeError)
_SHOWN_DEPTH, _SHOWN_ELEMENTS = 3, 8


def _show(value: Any, depth: int) -> str:
    """A value as drgn would print it; what cannot be read is said, not raised."""
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
            if _is_byte(value.type_.target.stripped):
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
    if isinstance(value, Pointer) and value and _is_byte(value.type_.stripped):
        try:
            return f'{int(value):#x} "{value.string(64)}"'
        except PageFault:  # most char pointers that cannot be read are simply not set yet
            return f"{int(value):#x}"
    if member.stripped.kind in (Kind.ENUM, Kind.ENUM64):
        names = {number: constant for constant, number in member.stripped.values.items()}
        return names.get(value, str(value))
    return _show(value, depth)
