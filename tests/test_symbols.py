# SPDX-License-Identifier: GPL-2.0-or-later
"""kallsyms: lookups by name and by address, and how symbols are printed."""

from __future__ import annotations

import pytest

from klpfs.machine.image import Symbol
from klpfs.machine.symbols import Location, Region, SymbolTable, in_kallsyms_order

TEXT = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFA0000000


@pytest.fixture
def table() -> SymbolTable:
    table = SymbolTable()
    table.add_image(
        [
            Symbol("_stext", TEXT, 0, "T"),
            Symbol("first", TEXT, 8, "T"),
            Symbol("twice", TEXT + 0x40, 4, "t"),
            Symbol("between", TEXT + 0x50, 4, "t"),
            Symbol("twice", TEXT + 0x20, 4, "t"),
            Symbol("data", TEXT + 0x1000, 4, "D"),
            Symbol("_end", TEXT + 0x2000, 0, "B"),
        ]
    )
    table.add_module(
        "old",
        [
            Symbol("", 0, 0, "U"),
            Symbol("_printk", TEXT, 0, "U"),
            Symbol("helper", MODULE + 0x30, 4, "t"),
            Symbol("helper", MODULE + 0x10, 4, "t"),
            Symbol(".LC0", MODULE + 0x18, 0, "r"),
            Symbol("", MODULE, 0, "t"),
            Symbol("start", MODULE, 4, "t"),
            Symbol("alias", MODULE, 4, "t"),
            Symbol("counter", MODULE + 0x1010, 4, "d"),
        ],
        [Region(MODULE, 0x2000, 0x1000)],
        build_id="00ff",
    )
    table.add_module("new", [Symbol("helper", MODULE + 0x8000, 4, "t")])
    return table


def test_names(table: SymbolTable) -> None:
    assert table.lookup("first") == TEXT
    assert table.lookup("twice") == TEXT + 0x20
    assert table.lookup("nothing") is None
    assert table.lookup("") is None


def test_the_newest_module_answers_first(table: SymbolTable) -> None:
    assert table.lookup("helper") == MODULE + 0x8000
    assert table.lookup("old:helper") == table.lookup("helper", "old") == MODULE + 0x30
    assert table.lookup("older:helper") is None
    assert table.lookup("first", "old") is None
    table.remove_module("new")
    assert table.lookup("helper") == MODULE + 0x30
    with pytest.raises(KeyError):
        table.remove_module("new")


def test_imports_are_not_found(table: SymbolTable) -> None:
    assert table.lookup("_printk") is None
    assert table.all_named("_printk", "old") == []
    table.add_module("old", [Symbol("_printk", TEXT, 0, "U"), Symbol("_printk", MODULE, 4, "t")])
    assert table.all_named("_printk", "old") == [MODULE]
    assert table.lookup("_printk") == MODULE


def test_what_sympos_counts(table: SymbolTable) -> None:
    assert table.all_named("twice") == [TEXT + 0x20, TEXT + 0x40]
    assert table.all_named("first") == [TEXT]
    assert table.all_named("helper") == []
    assert table.all_named("helper", "old") == [MODULE + 0x30, MODULE + 0x10]
    assert table.all_named("helper", "gone") == []


def located(table: SymbolTable, address: int) -> Location:
    """Return what a known address belongs to."""
    location = table.lookup_address(address)
    assert location is not None
    return location


def test_addresses(table: SymbolTable) -> None:
    symbol, offset, module = located(table, TEXT + 0x25)
    assert (symbol.name, symbol.size, offset, module) == ("twice", 0x20, 5, None)
    assert located(table, TEXT + 4).symbol.name == "_stext"
    assert table.lookup_address(TEXT - 1) is None
    assert table.lookup_address(TEXT + 0x2000) is None
    assert located(table, TEXT + 0x1FFF).symbol == Symbol("data", TEXT + 0x1000, 0x1000, "D")
    symbol, offset, module = located(table, MODULE + 0x1C)
    assert (symbol.name, symbol.size, offset, module) == ("helper", 0x20, 0xC, "old")
    assert located(table, MODULE + 8).symbol == Symbol("start", MODULE, 0x10, "t")
    assert table.lookup_address(MODULE + 0x2000) is None
    assert located(table, MODULE + 0x8003).symbol.name == "helper"
    assert table.lookup_address(MODULE + 0x8004) is None
    assert SymbolTable().lookup_address(TEXT) is None


def test_text(table: SymbolTable) -> None:
    assert table.sprint_symbol(TEXT + 0x20) == "twice+0x0/0x20"
    assert table.sprint_symbol(MODULE + 0x12) == "helper+0x2/0x20 [old]"
    assert table.sprint_symbol_no_offset(MODULE + 0x12) == "helper [old]"
    assert table.sprint_symbol_build_id(MODULE + 0x12) == "helper+0x2/0x20 [old 00ff]"
    assert table.sprint_symbol_build_id(MODULE + 0x8000) == "helper+0x0/0x4 [new]"
    assert table.sprint_symbol(0x1234) == "0x1234"
    assert table.sprint_symbol(0) == table.sprint_backtrace(0) == "0x0"


def test_backtraces_name_the_caller(table: SymbolTable) -> None:
    assert table.sprint_backtrace(TEXT + 0x40) == "twice+0x20/0x20"
    assert table.sprint_backtrace_build_id(MODULE + 0x10) == "start+0x10/0x10 [old 00ff]"
    assert table.sprint_backtrace(TEXT + 0x2001) == f"{TEXT + 0x2001:#x}"


def test_module_data_has_the_size_the_kernel_prints(table: SymbolTable) -> None:
    assert table.sprint_symbol(MODULE + 0x1010) == "counter+0x0/0xfffffffffffffff0 [old]"


def test_the_order_of_proc_kallsyms(table: SymbolTable) -> None:
    assert [(symbol.name, module) for symbol, module in table] == [
        ("_stext", None), ("first", None), ("twice", None), ("twice", None), ("between", None),
        ("data", None), ("_end", None), ("helper", "new"), ("_printk", "old"), ("helper", "old"),
        ("helper", "old"), (".LC0", "old"), ("start", "old"), ("alias", "old"), ("counter", "old"),
    ]  # fmt: skip


def test_the_init_part_of_a_module_goes(table: SymbolTable) -> None:
    table.add_module("old", [Symbol("start", MODULE, 4, "t")], [Region(MODULE, 0x1000, 0x1000)])
    assert table.sprint_symbol(MODULE + 0x10) == "start+0x10/0x1000 [old]"
    assert [module for _, module in table if module] == ["new", "old"]


def test_aliases_are_sorted_as_scripts_kallsyms_does() -> None:
    names = [("weak", "W"), ("__start_x", "T"), ("__x64_sys_a", "T"), ("_a", "T"), ("a", "T")]
    symbols = [Symbol(name, TEXT, 0, kind) for name, kind in names]
    symbols.insert(0, Symbol("later", TEXT + 1, 0, "T"))
    assert [symbol.name for symbol in in_kallsyms_order(symbols)] == [
        "a", "_a", "__x64_sys_a", "__start_x", "weak", "later"
    ]  # fmt: skip


def test_as_many_symbols_as_a_distribution_kernel_has() -> None:
    table = SymbolTable()
    table.add_image([Symbol(f"symbol_{i % 99000}", TEXT + i * 16, 16, "t") for i in range(100000)])
    assert table.lookup("symbol_98999") == TEXT + 98999 * 16
    assert table.sprint_symbol(TEXT + 5 * 16 + 1) == "symbol_5+0x1/0x10"
    assert len(table.all_named("symbol_7")) == 2
