# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's symbol table, with the semantics of kernel/kallsyms.c and kernel/module/kallsyms.c.

The symbols of the image are in the order of addresses, those of a module in the order of its
symbol table, and the modules from newest to oldest. These orders decide which of several symbols
of one name a lookup finds, and how ``sympos`` counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from klpfs.machine.image import Symbol

_U64 = (1 << 64) - 1
_MODULE_NAME_LEN = 56
_MAX_LOOKED_UP = 4096


class Region(NamedTuple):
    """A part of a module's memory (``struct module_layout``), text first. Sizes are in bytes."""

    base: int
    size: int
    text_size: int


class Location(NamedTuple):
    """The symbol that an address belongs to.

    ``symbol.size`` is the distance to the next symbol, as kallsyms does not know where a symbol
    ends. ``module`` is None for vmlinux.
    """

    symbol: Symbol
    offset: int
    module: str | None


class _Index:
    """Symbols by name and by address."""

    def __init__(self, symbols: Sequence[Symbol], regions: Sequence[Region], build_id: str) -> None:
        self.symbols = symbols
        self.regions = regions
        self.build_id = build_id

    @cached_property
    def _by_name(self) -> tuple[dict[str, Symbol], dict[str, list[Symbol]]]:
        """The first symbol of each name; all symbols of the names that several symbols have."""
        first: dict[str, Symbol] = {}
        several: dict[str, list[Symbol]] = {}
        for symbol in self.symbols:
            name = symbol[0]
            if symbol is not first.setdefault(name, symbol) and symbol.kind != "U":
                if first[name].kind == "U":
                    first[name] = symbol
                else:
                    several.setdefault(name, [first[name]]).append(symbol)
        return first, several

    def first(self, name: str) -> Symbol | None:
        """Return the first symbol of a name that is not imported, or None."""
        symbol = self._by_name[0].get(name)
        return None if symbol is None or symbol.kind == "U" else symbol

    def all(self, name: str) -> list[Symbol]:
        """Return all symbols of a name that are not imported."""
        symbol = self.first(name)
        return self._by_name[1].get(name, [symbol] if symbol is not None else [])

    @cached_property
    def _by_address(self) -> tuple[list[int], list[Symbol]]:
        """The addresses in order, and the first symbol at each."""
        found: dict[int, Symbol] = {}
        for symbol in self.symbols:
            found.setdefault(symbol[1], symbol)
        addresses = sorted(found)
        return addresses, [found[address] for address in addresses]

    def around(self, address: int) -> tuple[Symbol, int | None] | None:
        """Return the symbol at or before an address, and the address of the next one."""
        addresses, symbols = self._by_address
        at = bisect_right(addresses, address)
        if not at:
            return None
        return symbols[at - 1], addresses[at] if at < len(addresses) else None


class _Image(_Index):
    """The symbols of vmlinux."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        super().__init__(sorted(symbols, key=attrgetter("addr")), (), "")

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        """``_stext`` and ``_end``; in an image without these, the bounds of all symbols."""
        if not self.symbols:
            return 0, 0
        start, end, last = self.first("_stext"), self.first("_end"), self.symbols[-1]
        return (
            start.addr if start else self.symbols[0].addr,
            end.addr if end else last.addr + max(last.size, 1),
        )

    def locate(self, address: int) -> Location | None:
        """Return the location of an address, or None (``get_symbol_pos``)."""
        start, end = self._bounds
        found = self.around(address) if start <= address < end else None
        if found is None:
            return None
        symbol, following = found
        size = (end if following is None else following) - symbol.addr
        return Location(symbol._replace(size=size), address - symbol.addr, None)


class _Module(_Index):
    """The symbols of one module."""

    @cached_property
    def _by_address(self) -> tuple[list[int], list[Symbol]]:
        return _Index(
            [s for s in self.symbols if s.kind != "U" and s.addr and _is_shown(s.name)], (), ""
        )._by_address

    @cached_property
    def _spans(self) -> Sequence[Region]:
        if self.regions or not self._by_address[0]:
            return self.regions
        start = self._by_address[0][0]
        size = max(symbol.addr + max(symbol.size, 1) for symbol in self._by_address[1]) - start
        return (Region(start, size, size),)

    def locate(self, address: int, name: str) -> Location | None:
        """Return the location of an address in the module, or None (``find_kallsyms_symbol``)."""
        for region in self._spans:
            if region.base <= address < region.base + region.size:
                break
        else:
            return None
        found = self.around(address)
        if found is None:
            return None
        symbol, following = found
        end = region.base + region.text_size
        if following is not None and following < end:
            end = following
        # For data, which is behind the text, the kernel's subtraction wraps around.
        size = (end - symbol.addr) & _U64
        return Location(symbol._replace(size=size), address - symbol.addr, name)


class SymbolTable:
    """The symbols of the image and of the loaded modules.

    A symbol of kind ``U``, imported by a module, is listed but never found by a lookup.
    """

    def __init__(self) -> None:
        self._image = _Image(())
        self._modules: dict[str, _Module] = {}
        self._generated: list[Symbol] = []
        self._looked_up: dict[int, Location | None] = {}  # a cache: a few addresses come often

    def add_image(self, symbols: Iterable[Symbol]) -> None:
        """Set the symbols of vmlinux. Those at one address keep their order."""
        self._image = _Image(symbols)
        self._looked_up.clear()

    def add_module(
        self,
        name: str,
        symbols: Iterable[Symbol],
        regions: Sequence[Region] = (),
        build_id: str = "",
    ) -> None:
        """Set the symbols of a module, in the order of its symbol table.

        The symbols of a module that is already there are replaced, as in ``do_init_module``, which
        drops those of the init part. Without ``regions`` the module extends from its first symbol
        to its last. ``build_id`` is hexadecimal.
        """
        self._modules[name] = _Module(tuple(symbols), tuple(regions), build_id)
        self._looked_up.clear()

    def add_generated(self, symbol: Symbol) -> None:
        """Add a symbol for generated code. It is found by address only, and not listed."""
        self._generated.append(symbol)

    def remove_module(self, name: str) -> None:
        """Remove the symbols of a module. Raise KeyError if there are none."""
        del self._modules[name]
        self._looked_up.clear()

    def __iter__(self) -> Iterator[tuple[Symbol, str | None]]:
        """Yield every symbol with its module, in the order of /proc/kallsyms.

        As there, symbols of modules that have no name are left out.
        """
        for symbol in self._image.symbols:
            yield symbol, None
        for name, module in reversed(self._modules.items()):
            for symbol in module.symbols:
                if symbol.name:
                    yield symbol, name

    def lookup(self, name: str, module: str | None = None) -> int | None:
        """Return the address of a symbol, or None (``kallsyms_lookup_name``).

        vmlinux is searched first, then the modules. With ``module``, or a name like
        ``module:name``, only that module is searched.
        """
        if not name:
            return None
        if module is None:
            symbol = self._image.first(name)
            if symbol is not None:
                return symbol.addr
            owner, colon, rest = name.partition(":")
            if not colon or len(owner) >= _MODULE_NAME_LEN:
                for index in reversed(self._modules.values()):
                    symbol = index.first(name)
                    if symbol is not None and symbol.addr:
                        return symbol.addr
                return None
            module, name = owner, rest
        found = self._modules.get(module)
        symbol = found.first(name) if found is not None else None
        return symbol.addr or None if symbol is not None else None

    def all_named(self, name: str, objname: str | None = None) -> list[int]:
        """Return the addresses of all symbols of a name, as ``klp_find_object_symbol`` counts them.

        ``sympos`` n means element n - 1. ``objname`` is a module, or None for vmlinux. vmlinux is
        in the order of addresses, a module in the order of its symbol table.
        """
        index = self._image if objname is None else self._modules.get(objname)
        return [symbol.addr for symbol in index.all(name)] if index is not None else []

    def lookup_address(self, address: int) -> Location | None:
        """Return the location of an address (``kallsyms_lookup``).

        Return None outside of vmlinux, modules and generated code.
        """
        if address not in self._looked_up:
            if len(self._looked_up) >= _MAX_LOOKED_UP:
                self._looked_up.clear()
            self._looked_up[address] = self._lookup_address(address)
        return self._looked_up[address]

    def _lookup_address(self, address: int) -> Location | None:
        found = self._image.locate(address)
        if found is not None:
            return found
        for name, module in reversed(self._modules.items()):
            found = module.locate(address, name)
            if found is not None:
                return found
        for symbol in self._generated:
            if 0 <= address - symbol.addr < symbol.size:
                return Location(symbol, address - symbol.addr, None)
        return None

    # -- the text of %pS, %ps, %pB ----------------------------------------------------------------

    def sprint_symbol(self, address: int) -> str:
        """Return ``name+0x10/0x20 [module]``, or the address in hexadecimal (%pS)."""
        return self._sprint(address, 0, True, False)

    def sprint_symbol_no_offset(self, address: int) -> str:
        """Return ``name [module]``, or the address in hexadecimal (%ps)."""
        return self._sprint(address, 0, False, False)

    def sprint_symbol_build_id(self, address: int) -> str:
        """Like `sprint_symbol`, with ``[module build-id]`` (%pSb)."""
        return self._sprint(address, 0, True, True)

    def sprint_backtrace(self, address: int) -> str:
        """Like `sprint_symbol`, for a return address (%pB).

        The byte before it is looked up, as the call may be at the end of its function.
        """
        return self._sprint(address, -1, True, False)

    def sprint_backtrace_build_id(self, address: int) -> str:
        """Like `sprint_backtrace`, with ``[module build-id]`` (%pBb)."""
        return self._sprint(address, -1, True, True)

    def _sprint(self, address: int, skew: int, with_offset: bool, with_build_id: bool) -> str:
        """``__sprint_symbol``"""
        found = self.lookup_address((address + skew) & _U64)
        if found is None:
            return f"{address:#x}"
        text = found.symbol.name
        if with_offset:
            text += f"+{found.offset - skew:#x}/{found.symbol.size:#x}"
        if found.module is not None:
            build_id = self._modules[found.module].build_id if with_build_id else ""
            text += f" [{found.module}{build_id and ' ' + build_id}]"
        return text


def in_kallsyms_order(symbols: Iterable[Symbol]) -> list[Symbol]:
    """Return symbols in the order of scripts/kallsyms.c.

    This is the order of addresses. At one address, weak symbols and those of the linker script come
    last, and names with fewer leading underscores come first.
    """

    def rank(symbol: Symbol) -> tuple[int, bool, bool, int]:
        name = symbol.name
        return (
            symbol.addr,
            symbol.kind in "wW",
            len(name) >= 8 and _is_linker_script(name),
            len(name) - len(name.lstrip("_")),
        )

    return sorted(symbols, key=rank)


def _is_linker_script(name: str) -> bool:
    return name.startswith("__") and (
        name.startswith(("__start_", "__stop_", "__end_")) or name.endswith(("_start", "_end"))
    )


def _is_shown(name: str) -> bool:
    """Return whether a lookup by address may find this name.

    It does not find local symbols of the assembler (``is_arm_mapping_symbol``).
    """
    if not name or name.startswith(".L"):
        return False
    return not (name[0] == "$" and name[1:2] in tuple("axtd") and name[2:3] in ("", "."))
