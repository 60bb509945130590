# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF as gcc writes it, as pahole writes it (made by hand here), and damaged BTF."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from klpfs.machine.btf import BtfError, Kind, Types

SOURCE = """
struct list_head { struct list_head *next, *prev; };
struct never_defined;
union never_either;
enum state { LIVE, COMING = 5 };
typedef unsigned long long u64;
typedef const volatile u64 *cursor_t;
struct unused { int member; };
struct outer {
    int first;
    union { int word; struct { char low; struct { short high; }; }; };
    struct list_head lists[4];
    int small : 3, : 2, wide : 17;
    struct never_defined *hidden;
    union never_either *either;
    cursor_t cursor;
    int (*call)(struct outer *self, const char *name);
    char *names[3];
    int numbers[];
};
struct outer *show(struct outer *outer, const char *format, ...) { return outer; }
int counter;
"""


def compiled(source: str, directory: Path) -> bytes:
    path = directory / "types.c"
    path.write_text(source)
    flags = ["-gbtf", "-fno-eliminate-unused-debug-types"]
    subprocess.run(["gcc", *flags, "-c", path, "-o", path.with_suffix(".o")], check=True)
    with path.with_suffix(".o").open("rb") as file:
        section = ELFFile(file).get_section_by_name(".BTF")
        assert section is not None
        data: bytes = section.data()
        return data


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(SOURCE, tmp_path_factory.mktemp("btf"))


@pytest.fixture(scope="module")
def types(blob: bytes) -> Types:
    return Types(blob)


class Writer:
    """A writer of blobs, for constructs that gcc does not write."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def name(self, text: str) -> int:
        offset = len(self.strings)
        self.strings += text.encode() + b"\0"
        return offset

    def add(
        self,
        kind: Kind,
        name: str = "",
        size: int = 0,
        flag: bool = False,
        vlen: int = 0,
        *rest: int,
    ) -> int:
        info = kind << 24 | flag << 31 | vlen
        words = (self.name(name) if name else 0, info, size, *rest)
        self.types += b"".join(struct.pack("<I", word & 0xFFFFFFFF) for word in words)
        self.count += 1
        return self.count

    def blob(self) -> bytes:
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + self.types + self.strings


def test_sizes(types: Types) -> None:
    assert types.sizeof("struct list_head") == 16
    assert types.sizeof("struct list_head *") == 8
    assert (
        types.sizeof("u64")
        == types.sizeof("unsigned long")
        == types.sizeof("long unsigned int")
        == 8
    )
    assert types.sizeof("enum state") == types.sizeof("int") == 4
    assert types.sizeof("void") == 0
    assert types["struct list_head"].array(3).size == 48


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        ("first", 0), ("word", 4), ("low", 4), ("high", 6), ("lists", 8), ("lists[0]", 8),
        ("lists[3].prev", 8 + 3 * 16 + 8), ("lists[0x2]", 40), ("hidden", 80), ("names[2]", 128),
        ("numbers[5]", 156),
    ],
)  # fmt: skip
def test_offsets(types: Types, path: str, offset: int) -> None:
    assert types.offsetof("struct outer", path) == offset


@pytest.mark.parametrize(
    "path", ["nothing", "first.low", "first[1]", "lists.next", "lists[", "lists[-1]", "a b", "."]
)
def test_paths_that_lead_nowhere(types: Types, path: str) -> None:
    with pytest.raises(LookupError):
        types.offsetof("struct outer", path)


def test_bitfields(types: Types) -> None:
    fields = types["struct outer"].fields
    assert (fields["small"].bit_offset, fields["small"].bit_size) == (72 * 8, 3)
    assert (fields["wide"].bit_offset, fields["wide"].bit_size) == (72 * 8 + 5, 17)
    with pytest.raises(BtfError, match="bitfield"):
        types.offsetof("struct outer", "wide")


def test_declarations(types: Types) -> None:
    assert types["struct never_defined"].kind is Kind.FWD
    assert types["union never_either"].kind is Kind.FWD
    assert "union never_defined" not in types
    with pytest.raises(BtfError, match="struct never_defined has no size"):
        types.sizeof("struct never_defined")
    with pytest.raises(LookupError, match="no type 'struct nothing'"):
        types["struct nothing"]
    assert types.get("struct nothing *") is None


def test_types_that_no_variable_uses_are_there(types: Types) -> None:
    assert types.offsetof("struct unused", "member") == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cursor_t", "cursor_t"),
        ("struct list_head**", "struct list_head **"),
        ("unsigned long", "long unsigned int"),
    ],
)
def test_types_read_as_c(types: Types, name: str, text: str) -> None:
    assert str(types[name]) == text


def test_declarators(types: Types) -> None:
    fields = types["struct outer"].fields
    assert types["cursor_t"].target.declare("c") == "volatile const u64 *c"
    assert fields["call"].type.declare("call") == "int (*call)(struct outer *, const char *)"
    assert fields["names"].type.declare("names") == "char *names[3]"
    assert fields["numbers"].type.declare("numbers") == "int numbers[]"
    assert fields["lists"].type.pointer().declare("p") == "struct list_head (*p)[4]"


def test_functions(types: Types) -> None:
    show = types.function("show")
    assert show is not None
    assert [(p.name, str(p.type)) for p in show.parameters] == [
        ("outer", "struct outer *"), ("format", "const char *")
    ]  # fmt: skip
    assert show.variadic
    assert str(show.target.target) == "struct outer *"
    assert str(show) == "struct outer *show(struct outer *outer, const char *format, ...)"
    assert "show" in set(types.functions())
    assert types.function("hide") is None
    assert str(types.variable("counter")) == "int"
    assert types.variable("show") is None


def test_constants(types: Types) -> None:
    assert types["enum state"].values == {"LIVE": 0, "COMING": 5}
    assert types.constant("COMING") == 5
    with pytest.raises(LookupError):
        types.constant("GOING")


def test_a_definition_is_preferred_to_a_declaration() -> None:
    writer = Writer()
    writer.add(Kind.FWD, "x")
    number = writer.add(Kind.INT, "int", 4, False, 0, 1 << 24 | 32)
    writer.add(Kind.PTR, "", 1)
    writer.add(
        Kind.STRUCT, "x", 8, False, 2, writer.name("a"), number, 0, writer.name("b"), number, 32
    )
    types = Types(writer.blob())
    assert types["struct x"].kind is Kind.STRUCT
    assert types.by_id(3).target.stripped is types["struct x"]
    assert types["struct x"].fields["b"].offset == 4


def test_bitfields_without_kind_flag() -> None:
    writer = Writer()
    bits = writer.add(Kind.INT, "unsigned int", 4, False, 0, 2 << 16 | 4)
    writer.add(Kind.STRUCT, "x", 16, False, 1, writer.name("field"), bits, 100)
    field = Types(writer.blob())["struct x"].fields["field"]
    assert (field.bit_offset, field.bit_size) == (102, 4)


def test_kinds_that_gcc_does_not_write() -> None:
    writer = Writer()
    a, b, c = (writer.name(name) for name in ("MINUS", "LARGE", "SMALL"))
    writer.add(Kind.ENUM64, "wide", 8, True, 2, a, 0xFFFFFFFF, 0xFFFFFFFF, b, 0, 1)
    writer.add(Kind.ENUM, "signed", 1, True, 1, c, -3)
    base = writer.add(Kind.INT, "char", 1, False, 0, 8)
    tag = writer.add(Kind.TYPE_TAG, "user", base)
    writer.add(Kind.TYPEDEF, "user_text", writer.add(Kind.PTR, "", tag))
    writer.add(Kind.DECL_TAG, "note", tag, False, 0, -1)
    writer.add(Kind.FLOAT, "double", 8)
    types = Types(writer.blob())
    assert types["enum wide"].values == {"MINUS": -1, "LARGE": 1 << 32}
    assert types.constant("SMALL") == -3
    assert types["user_text"].stripped.target.stripped is types["char"]
    assert types["double"].size == 8
    assert len(list(types)) == len(types) == 9


@pytest.mark.parametrize(
    ("kind", "rest"),
    [(Kind.TYPEDEF, ()), (Kind.CONST, ()), (Kind.ARRAY, (1, 1, 4)), (Kind.STRUCT, (0, 1, 0)),
     (Kind.PTR, ()), (Kind.FUNC_PROTO, (0, 1, 0, 1))],
)  # fmt: skip
def test_types_made_of_themselves_end(kind: Kind, rest: tuple[int, ...]) -> None:
    writer = Writer()
    vlen = {Kind.STRUCT: 1, Kind.FUNC_PROTO: 2}.get(kind, 0)
    writer.add(kind, "", 1, False, vlen, *rest)
    touch_everything(Types(writer.blob()))


def touch_everything(types: Types) -> None:
    """Read all properties of all types. Only BtfError may be raised."""
    for id in range(len(types)):
        for question in ("stripped", "size", "fields", "values", "parameters", "target", "signed",
                         "is_bool", "count", "name", "variadic"):  # fmt: skip
            with contextlib.suppress(BtfError):
                getattr(types.by_id(id), question)
        with contextlib.suppress(BtfError):
            str(types.by_id(id))


@pytest.mark.parametrize(
    ("blob", "sentence"),
    [
        (b"", "too short"),
        (b"\x7fELF" + bytes(60), "not BTF"),
        (struct.pack(">HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0", "big-endian"),
        (struct.pack("<HBBIIIII", 0xEB9F, 2, 0, 24, 0, 0, 0, 1) + b"\0", "version 2"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 8, 0, 0, 0, 1) + b"\0", "header"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 64, 0, 1) + b"\0", "types are not within"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 9) + b"\0", "strings are not within"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"x", "NUL"),
        (
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1)
            + struct.pack("<6I", 0, Kind.STRUCT << 24 | 1, 8, 0, 0, 0),
            "cut short",
        ),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1) + bytes(13), "no kind"),
    ],
)  # fmt: skip
def test_data_that_is_not_btf(blob: bytes, sentence: str) -> None:
    with pytest.raises(BtfError, match=sentence):
        Types(blob)


@settings(max_examples=400, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=12
    ),
    cut=st.integers(0, 1 << 16),
)
@example(changes=[(0, 0)], cut=0)
def test_damage_is_reported_and_nothing_else(
    blob: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(blob)
    for place, value in changes:
        data[place % len(data)] = value
    if cut % 4 == 0:
        del data[cut % len(data) :]
    try:
        types = Types(bytes(data))
    except BtfError:
        return
    touch_everything(types)
    for name in ("struct outer", "u64", "enum state"):
        try:
            types.get(name)
            types.constant("LIVE")
        except (BtfError, LookupError):
            pass


HOST = Path("/sys/kernel/btf/vmlinux")


@pytest.mark.skipif(not HOST.exists(), reason="the host has no BTF")
def test_a_whole_kernel() -> None:
    blob = HOST.read_bytes()
    types = Types(blob)
    assert types.sizeof("struct list_head") == 16
    assert (
        types.offsetof("struct task_struct", "comm[1]")
        == types.offsetof("struct task_struct", "comm") + 1
    )
    assert types["struct list_head"].fields["prev"].offset == 8
    assert types["pid_t"].stripped is types["int"]
    for id in range(1, len(types), 97):
        assert str(types.by_id(id))
        assert types.by_id(id).fields is not None
