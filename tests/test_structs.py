# SPDX-License-Identifier: GPL-2.0-or-later
"""Views of C structs, over a byte array, with types from gcc."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from klpfs.machine.btf import Types
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import LIST_POISON1, LIST_POISON2, Pointer, Space, Struct

SOURCE = """
struct list_head { struct list_head *next, *prev; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
struct unknown;
enum state { LIVE, COMING = 5 };
typedef unsigned long long u64;
typedef struct { int counter; } atomic_t;
struct item {
    int number;
    struct list_head list;
    struct hlist_node hash;
    char name[8];
};
struct all {
    _Bool on;
    signed char s8; unsigned char u8;
    short s16; unsigned short u16;
    int s32; unsigned int u32;
    long s64; u64 u64;
    __int128 s128;
    enum state state;
    int small : 3; unsigned int wide : 17; _Bool flag : 1;
    u64 across : 40;
    union { unsigned int word; struct { unsigned short low, high; }; };
    char text[8];
    struct item items[3];
    struct item *item;
    struct unknown *opaque;
    void *nothing;
    const char *label;
    const char **labels;
    int (*call)(int);
    int __state;
    atomic_t count;
    double ratio;
    struct item *real;
    struct item flexible[];
};
struct all all;
"""
BASE = 0xFFFF888000000000


class Bytes:
    """Memory of two pages. Accesses outside of them raise PageFault."""

    def __init__(self) -> None:
        self.data = bytearray(8192)

    def _at(self, addr: int, size: int) -> int:
        if not BASE <= addr <= addr + size <= BASE + len(self.data):
            raise PageFault(addr)
        return addr - BASE

    def read(self, addr: int, size: int) -> bytes:
        at = self._at(addr, size)
        return bytes(self.data[at : at + size])

    def write(self, addr: int, data: bytes) -> None:
        at = self._at(addr, len(data))
        self.data[at : at + len(data)] = data


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Types:
    source = tmp_path_factory.mktemp("types") / "types.c"
    source.write_text(SOURCE)
    subprocess.run(
        [
            "gcc",
            "-gbtf",
            "-fno-eliminate-unused-debug-types",
            "-c",
            source,
            "-o",
            source.with_suffix(".o"),
        ],
        check=True,
    )
    with Path(source.with_suffix(".o")).open("rb") as file:
        section = ELFFile(file).get_section_by_name(".BTF")
        assert section is not None
        return Types(section.data())


@pytest.fixture
def space(types: Types) -> Space:
    return Space(types, Bytes())


@pytest.fixture
def view(space: Space) -> Struct:
    view: Struct = space.view("struct all", BASE)
    return view


@pytest.mark.parametrize(
    ("member", "stored", "read"),
    [
        ("on", True, True), ("on", 0, False), ("on", 256, True),
        ("s8", -1, -1), ("s8", 255, -1), ("u8", 256 + 7, 7), ("u8", -1, 255),
        ("s16", -2, -2), ("u16", 0xFFFF, 0xFFFF), ("s32", 1 << 31, -(1 << 31)),
        ("u32", -1, 2**32 - 1),
        ("s64", -5, -5), ("s64", (1 << 64) - 5, -5), ("u64", -5, 2**64 - 5), ("u64", 1 << 64, 0),
        ("s128", -1, -1), ("s128", 1 << 100, 1 << 100),
        ("state", 5, 5),
        ("small", 3, 3), ("small", -4, -4), ("small", 4, -4), ("wide", 0x1FFFF, 0x1FFFF),
        ("wide", 1 << 17, 0), ("flag", 2, True), ("across", 0x123456789A, 0x123456789A),
        ("ratio", 0.5, 0.5), ("__state", 3, 3),
    ],
)  # fmt: skip
def test_scalars_are_converted_as_in_c(
    view: Struct, member: str, stored: float, read: object
) -> None:
    setattr(view, member, stored)
    assert getattr(view, member) == read
    assert type(getattr(view, member)) is type(read)


def test_a_bitfield_leaves_its_neighbours_alone(view: Struct) -> None:
    view.small, view.wide, view.flag, view.across = -1, 0x15555, True, 0xFFFFFFFFFF
    view.wide = 0
    assert (view.small, view.wide, view.flag, view.across) == (-1, 0, True, 0xFFFFFFFFFF)
    view.small = 0
    assert (view.small, view.wide, view.flag, view.across) == (0, 0, True, 0xFFFFFFFFFF)


def test_anonymous_members_are_transparent(view: Struct) -> None:
    view.word = 0x12345678
    assert (view.high, view.low) == (0x1234, 0x5678)


def test_nested_structs_and_arrays_are_views(view: Struct, types: Types) -> None:
    view.items[1].number = 7
    view.items[-1].number = 8
    assert [item.number for item in view.items] == [0, 7, 8]
    assert len(view.items) == 3
    assert view.items[1].address_ == view.member_address_("items[1]")
    assert view.member_address_("items[2].list.prev") == BASE + types.offsetof(
        "struct all", "items[2].list.prev"
    )
    with pytest.raises(IndexError):
        view.items[3]
    view.count.counter += 1
    assert view.count.counter == 1
    view.items[0] = view.items[2]
    assert view.items[0].number == 8
    assert view.flexible[2].address_ == view.flexible.address_ + 2 * types.sizeof("struct item")


def test_text(view: Struct) -> None:
    view.text = "patch"
    assert view.text.string() == "patch"
    view.text = b"12345678"
    assert view.text.string() == "12345678"
    view.text[0] = ord("0")
    assert view.text.bytes_() == b"02345678"
    view.text = "\udcff"  # a byte that is not UTF-8 survives
    assert view.text[0] == -1
    assert view.text.string() == "\udcff"
    with pytest.raises(ValueError, match="9 bytes do not fit"):
        view.text = "123456789"
    with pytest.raises(TypeError):
        view.items = "text"


def test_pointers(view: Struct, space: Space) -> None:
    view.item = view.items[1]
    assert isinstance(view.item, Pointer)
    assert view.item == view.items[1].address_
    assert view.item[0] == view.items[1]
    view.item.number = 42
    assert view.items[1].number == 42
    assert view.item[1].address_ == view.items[2].address_
    assert view.item.list.next == 0
    view.item = None
    assert not view.item
    view.item = -1
    assert view.item == 2**64 - 1
    view.real = view.items[0]
    assert view.real.number == 0
    pointer: Any = space.pointer("struct all", BASE)  # a type checker knows the `real` of an int
    pointer.real = 5
    assert space.pointer("struct all", BASE).real == 5  # though an int has a `real` of its own


def test_what_a_pointer_cannot_do(view: Struct) -> None:
    view.opaque = view.nothing = view.call = BASE
    for pointer in (view.opaque, view.nothing, view.call):
        with pytest.raises(TypeError):
            pointer[0]
        with pytest.raises(AttributeError):
            _ = pointer.number
    with pytest.raises(AttributeError, match="struct item has no member 'nubmer'"):
        _ = view.real.nubmer
    with pytest.raises(PageFault):
        _ = view.real.number


def test_strings_read_no_page_beyond_their_end(view: Struct, space: Space) -> None:
    space.memory.write(BASE + 8192 - 6, b"hello\0")
    view.label = BASE + 8192 - 6
    assert view.label.string() == "hello"
    assert view.label[1] == ord("e")
    space.memory.write(BASE + 4096 - 3, b"across the page\0")
    assert space.read_string(BASE + 4096 - 3) == "across the page"
    assert space.read_string(BASE + 4096 - 3, limit=6) == "across"
    space.write_u64(BASE + 4000, BASE + 4096 - 3)
    view.labels = BASE + 4000
    assert view.labels[0].string() == "across the page"
    space.memory.write(BASE + 8192 - 1, b"x")
    with pytest.raises(PageFault):
        space.read_string(BASE + 8192 - 1)


def test_names_that_do_not_exist_are_errors(view: Struct, space: Space) -> None:
    with pytest.raises(AttributeError, match="struct all has no member 'onn'"):
        _ = view.onn
    with pytest.raises(AttributeError):
        view.onn = 1
    with pytest.raises(LookupError):
        space.view("struct nothing", BASE)
    with pytest.raises(TypeError):
        space.view("int", BASE)


class Mangler:
    """Python mangles names with two leading underscores inside a class."""

    def set(self, view: Struct, value: int) -> object:
        view.__state = value
        return view.__state

    def set_through(self, pointer: Pointer, value: int) -> object:
        pointer.__state = value
        return pointer.__state


def test_members_with_two_underscores_work_inside_classes(view: Struct, space: Space) -> None:
    assert Mangler().set(view, 9) == 9 == getattr(view, "__state")
    assert Mangler().set_through(space.pointer("struct all", BASE), 4) == 4


def test_views_are_equal_by_place_and_type(view: Struct, space: Space) -> None:
    assert view == space.view("struct all", BASE)
    assert view != space.view("struct all", BASE + 8)
    assert view != space.view("struct item", BASE)
    assert len({view, space.view("struct all", BASE)}) == 1
    assert view != BASE


def test_containers(view: Struct, space: Space) -> None:
    item = view.items[2]
    assert space.container_of(item.list, "struct item", "list") == item
    assert space.container_of(item.member_address_("hash"), "struct item", "hash") == item


def test_values_of_any_type(space: Space) -> None:
    space.store("atomic_t *", BASE, 0x1234)
    assert space.load("unsigned long", BASE) == 0x1234
    assert isinstance(space.load("atomic_t *", BASE), Pointer)
    numbers = space.array("int", BASE, 4)
    numbers[3] = -1
    assert list(numbers) == [0x1234, 0, 0, -1]
    assert space.read_u32(BASE + 12) == 0xFFFFFFFF
    assert (space.read_s32(BASE + 12), space.read_u8(BASE + 12)) == (-1, 255)


def members(space: Space, head: int) -> list[int]:
    return [item.number for item in space.list_entries(head, "struct item", "list")]


def test_lists(view: Struct, space: Space) -> None:
    head = BASE + 4096
    space.init_list_head(head)
    assert space.list_empty(head)
    assert space.list_first_entry(head, "struct item", "list") is None
    for number, item in enumerate(view.items):
        item.number = number
        (space.list_add if number == 2 else space.list_add_tail)(item.list, head)
        assert space.list_is_singular(head) == (number == 0)
    assert members(space, head) == [2, 0, 1]
    assert space.list_first_entry(head, "struct item", "list") == view.items[2]
    for item in space.list_entries(head, "struct item", "list"):
        if item.number != 1:
            space.list_del(item.list)
    assert members(space, head) == [1]
    assert (view.items[0].list.next, view.items[0].list.prev) == (LIST_POISON1, LIST_POISON2)
    space.list_del_init(view.items[1].list)
    assert space.list_empty(head)
    assert space.list_empty(view.items[1].list)
    space.list_add(view.items[1].list, head)
    space.list_del_rcu(view.items[1].list)
    assert (view.items[1].list.next, view.items[1].list.prev) == (head, LIST_POISON2)


def test_hash_lists(view: Struct, space: Space) -> None:
    head = space.view("struct hlist_head", BASE + 4096)
    assert space.hlist_empty(head)
    for number, item in enumerate(view.items):
        item.number = number
        space.hlist_add_head(item.hash, head)
    found = [item.number for item in space.hlist_entries(head, "struct item", "hash")]
    assert found == [2, 1, 0]
    for number in (1, 2, 0):
        space.hlist_del(view.items[number].hash)
        left = [item.number for item in space.hlist_entries(head, "struct item", "hash")]
        assert left == {1: [2, 0], 2: [0], 0: []}[number]
    assert view.items[0].hash.next == LIST_POISON1
    assert view.items[0].hash.pprev == LIST_POISON2


def test_repr(view: Struct, space: Space) -> None:
    view.state, view.text, view.label, view.real = 5, "a\nb", BASE + 4096, BASE
    space.memory.write(BASE + 4096, b"name\0")
    text = repr(view)
    assert text.startswith(f"(struct all *){BASE:#x} = {{")
    assert "\t.state = COMING,\n" in text
    assert '\t.text = "a\\nb",\n' in text
    assert f'\t.label = {BASE + 4096:#x} "name",\n' in text
    assert repr(view.real) == f"(struct item *){BASE:#x}"
    assert "no page at" in repr(space.view("struct item", 0x1000))
    assert repr(view.items).startswith("(struct item[3])")
