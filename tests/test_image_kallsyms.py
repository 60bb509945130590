# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbol tables of kernels, found among other data."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from vmlinux_maker import LAYOUTS, TEXT, Layout, Sym
from vmlinux_maker import kallsyms as tables

from klpfs.machine.image import kallsyms
from klpfs.machine.image.kallsyms import Table

RODATA = TEXT + 0x1000000
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC_.0123456789$", min_size=1, max_size=40)
LONG_NAMES = st.integers(100, 500).map(lambda size: "Zx"[size % 2] * size)
WORDS = ("show", "cmdline", "proc", "klp", "ftrace", "__pfx", "seq", "9p", "isra", "cold")

layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.name for layout in LAYOUTS])


def many(count: int, per_cpu: bool = True) -> list[Sym]:
    """Return symbols like those of a kernel, with some long names and with per-CPU symbols first."""
    chance = random.Random(count)
    names = ["_".join(chance.choices(WORDS, k=chance.randint(1, 6))) for _ in range(count)]
    for i in range(7, count, 97):
        names[i] = "_RNv" + "".join(chance.choices("abcXYZ0189", k=200 + i % 250))
    addresses = sorted(TEXT + chance.randrange(1 << 24) for _ in range(count))
    if per_cpu:
        addresses[: count // 20] = sorted(chance.randrange(1 << 17) for _ in range(count // 20))
    return [
        Sym(name, addr, chance.choice("tTdDrRbBwWvA"))
        for name, addr in zip(names, addresses, strict=True)
    ]


def as_symbols(table: Table) -> list[Sym]:
    return list(map(Sym, table.names, table.addresses, table.kinds))


def has_room_for_per_cpu(layout: Layout) -> bool:
    """Return whether this layout can store an address that is far from the kernel."""
    return layout.addresses in ("absolute", "percpu")


@layouts
@pytest.mark.parametrize("count", [1, 255, 256, 257, 3000])
def test_every_layout(layout: Layout, count: int) -> None:
    symbols = many(count, has_room_for_per_cpu(layout))
    found = kallsyms.find(tables(symbols, layout, RODATA), RODATA)
    assert found is not None
    assert as_symbols(found) == symbols


@layouts
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_they_are_and_wherever(layout: Layout, data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES | LONG_NAMES, min_size=4, max_size=300))
    start = data.draw(st.integers(0, 1 << 20))
    symbols = [Sym(name, TEXT + start + 16 * i) for i, name in enumerate(names)]
    before = data.draw(st.binary(max_size=100))
    before += bytes(-len(before) % 8)
    found = kallsyms.find(
        before + tables(symbols, layout, RODATA + len(before)) + data.draw(st.binary(max_size=50)),
        RODATA,
    )
    assert found is not None
    assert as_symbols(found) == symbols


def test_symbols_of_one_name_or_address_stay_in_order() -> None:
    symbols = [
        Sym("show", TEXT), Sym("start", TEXT, "T"), Sym("show", TEXT), Sym("_show", TEXT + 4, "W"),
        Sym("show", TEXT + 4), Sym("show", TEXT + 4, "d"),
    ]  # fmt: skip
    found = kallsyms.find(tables(symbols, LAYOUTS[3], RODATA), RODATA)
    assert found is not None
    assert as_symbols(found) == symbols


def test_a_name_needs_not_be_ascii() -> None:
    symbols = [Sym("größe", TEXT), Sym("plain", TEXT + 1)]
    found = kallsyms.find(tables(symbols, LAYOUTS[3], RODATA), RODATA)
    assert found is not None
    assert found.names == ["größe", "plain"]


def test_digits_alone_are_no_table() -> None:
    """A driver may have such a table of strings."""
    digits = b"".join(b"%d\0" % i for i in range(300))
    symbols = many(300)
    haystack = digits + bytes(-len(digits) % 8)
    assert kallsyms.find(haystack * 3, RODATA) is None
    found = kallsyms.find(haystack + tables(symbols, LAYOUTS[3], RODATA + len(haystack)), RODATA)
    assert found is not None
    assert as_symbols(found) == symbols


@pytest.mark.parametrize("junk", [bytes(8), bytes(5) + b"\x04\0\0", b"\0\0\0\0\1\0\0\0"])
def test_what_looks_like_a_table_at_every_place(junk: bytes) -> None:
    """The search ends, and does not take long."""
    table = tables(many(300), LAYOUTS[3], RODATA)
    tokens = table[table.rindex(b"0\x001\x002\x00") - 3200 & -8 :]
    assert kallsyms.find(junk * (1 << 19) + tokens, RODATA) is None


WHOLE = {
    layout: tables(many(700, has_room_for_per_cpu(layout)), layout, RODATA) for layout in LAYOUTS
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layout=st.sampled_from(LAYOUTS),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=9)), max_size=4
    ),
    cut=st.integers(0, 1 << 16),
)
@example(layout=LAYOUTS[3], changes=[], cut=1)
def test_damaged_tables_are_read_or_not_found(
    layout: Layout, changes: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(WHOLE[layout])
    for at, junk in changes:
        at %= len(data)
        data[at : at + len(junk)] = junk
    del data[len(data) - cut % len(data) :]
    found = kallsyms.find(bytes(data), RODATA)
    if found is not None:
        assert len(found.names) == len(found.kinds) == len(found.addresses)
