# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of any C type at addresses of a memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from klpfs.machine.btf import Type, Types
from klpfs.machine.structs.classes import Classes
from klpfs.machine.structs.plain import MemoryLike, PlainMemory
from klpfs.machine.structs.views import Array, Pointer, View, address_of


class Field(NamedTuple):
    """A member of a struct, wherever it is in the structs of this kernel."""

    get: Callable[[View], Any]
    set: Callable[[View, Any], None]


class TypedMemory(PlainMemory):
    """Typed access to a memory.

    Addresses may be numbers, `Pointer` or views. All methods pass on the exceptions of the memory
    (`klpfs.machine.memory.PageFault`), and raise LookupError for the name of a type that does not
    exist.
    """

    def __init__(self, types: Types, memory: MemoryLike) -> None:
        super().__init__(memory)
        self.types = types
        self.missing_members: Mapping[str, Mapping[str, Any]] = {}
        """The values of members that this kernel's structs lack and those of other kernels have:
        by the name of the struct, then of the member."""
        self.classes = Classes(self)
        self._views: dict[str | Type, type[View]] = {}

    def view(self, name: str | Type, address: int | View) -> Any:
        """Return the `Struct` (for a struct or union) or `Array` of that type at ``address``.

        Raise TypeError for a type of another kind.
        """
        made = self._views.get(name)
        if made is None:
            ctype = self.types[name] if isinstance(name, str) else name
            made = self._views[name] = self.classes.view(ctype)
        return made(address_of(address))

    def load(self, name: str | Type, address: int | View) -> Any:
        """Return the value of any type at ``address``, as a member of that type reads."""
        ctype = self.types[name] if isinstance(name, str) else name
        return self.classes.codec(ctype).load(address_of(address))

    def store(self, name: str | Type, address: int | View, value: Any) -> None:
        """Store a value of any type at ``address``."""
        ctype = self.types[name] if isinstance(name, str) else name
        self.classes.codec(ctype).store(address_of(address), value)

    def array(self, name: str | Type, address: int | View, count: int) -> Array:
        """Return an array of ``count`` elements of a type at ``address``."""
        ctype = self.types[name] if isinstance(name, str) else name
        return cast(Array, self.view(ctype.array(count), address))

    def pointer(self, name: str | Type, address: int | View) -> Pointer:
        """Return ``address`` as a pointer to a type."""
        ctype = self.types[name] if isinstance(name, str) else name
        return self.classes.pointer(ctype)(address_of(address))

    def field(self, name: str, path: str) -> Field:
        """Return access to the member ``path`` (``"a.b[3].c"``) of structs of type ``name``.

        Raise LookupError if there is no such member, BtfError for a bitfield.
        """
        offset, ctype = self.types.locate(self.types[name], path)
        codec = self.classes.codec(ctype)
        return Field(
            lambda view: codec.load(view.address_ + offset),
            lambda view, value: codec.store(view.address_ + offset, value),
        )

    def container_of(self, address: int | View, name: str, member: str) -> Any:
        """Return the struct of type ``name`` whose ``member`` is at ``address``."""
        return self.view(name, address_of(address) - self.types.offsetof(name, member))
