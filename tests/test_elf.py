# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules built with gcc, and damaged ones, as the kernel's loader reads them."""

from __future__ import annotations

import errno
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from klpfs.machine.elf import (
    ElfError,
    Layout,
    ModuleImage,
    Part,
    Place,
    Relocation,
    Section,
    apply_relocations,
    clear_relocations,
    layout,
)
from klpfs.machine.elf import format as elf

SOURCE = r"""
#define section(name) __attribute__((section(name), used))
section(".modinfo") static const char license[] = "license=GPL";
section(".modinfo") static const char name[] = "name=sample";
section(".modinfo") static const char alias1[] = "alias=one";
section(".modinfo") static const char alias2[] = "alias=two=2";
section(".gnu.linkonce.this_module") char __this_module[704];
extern int _printk(const char *format, ...);
extern int maybe(void) __attribute__((weak));
int counter = 5;
int zeroed[1000];
int *address = &counter;
section(".data..ro_after_init") int settled = 1;
section(".init.data") int starting = 1;
static int helper(int n) { return n * counter; }
section(".init.text") int init_module(void)
{
    zeroed[1] = helper(starting);
    return _printk("hello %d\n", zeroed[1]);
}
section(".exit.text") void cleanup_module(void) { if (maybe) maybe(); _printk("bye\n"); }
int visible(int n) { return _printk("visible %d\n", n + settled); }
"""
FLAGS = ["-O1", "-mcmodel=kernel", "-fno-pic", "-ffreestanding", "-fno-inline"]
FLAGS += ["-fno-toplevel-reorder", "-fno-asynchronous-unwind-tables"]


def compiled(source: str, directory: Path, *flags: str) -> bytes:
    path = directory / "module.c"
    path.write_text(source)
    subprocess.run(["gcc", *FLAGS, *flags, "-c", path, "-o", directory / "one.o"], check=True)
    subprocess.run(["ld", "-r", directory / "one.o", "-o", directory / "module.ko"], check=True)
    return (directory / "module.ko").read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(SOURCE, tmp_path_factory.mktemp("module"))


@pytest.fixture(scope="module")
def image(data: bytes) -> ModuleImage:
    return ModuleImage.parse(data)


def changed(data: bytes, layout: str, place: int, value: int) -> bytes:
    copy = bytearray(data)
    struct.pack_into(layout, copy, place, value)
    return bytes(copy)


def header_place(data: bytes, name: str, field: int) -> int:
    """Where byte ``field`` of the header of section ``name`` is in the file."""
    section = section_of(ModuleImage.parse(data), name)
    start: int = struct.unpack_from("<Q", data, 40)[0]
    return start + section.index * 64 + field


def section_of(image: ModuleImage, name: str) -> Section:
    """Return a section that the module has."""
    section = image.find_any(name)
    assert section is not None
    return section


def refused(data: bytes) -> ElfError:
    with pytest.raises(ElfError) as info:
        ModuleImage.parse(data)
    assert info.value.errno == errno.ENOEXEC
    return info.value


# -- reading --------------------------------------------------------------------------------------


def test_modinfo(image: ModuleImage) -> None:
    assert image.name == "sample"
    assert image.modinfo.get("license") == "GPL"
    assert image.modinfo.get("vermagic") is None
    assert list(image.modinfo.all("alias")) == ["one", "two=2"]
    assert [tag for tag, _ in image.modinfo.items] == ["license", "name", "alias", "alias"]
    assert not image.is_livepatch


def test_it_reads_what_pyelftools_reads(image: ModuleImage, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "module.ko"
    path.write_bytes(data)
    with path.open("rb") as file:
        other = ELFFile(file)
        assert len(image.sections) == other.num_sections()
        for mine, theirs in zip(image.sections, other.iter_sections(), strict=True):
            assert (mine.name, mine.size, mine.link, mine.info, mine.entsize) == (
                theirs.name, theirs["sh_size"], theirs["sh_link"], theirs["sh_info"],
                theirs["sh_entsize"],
            )  # fmt: skip
            if mine.type not in (elf.SHT_NULL, elf.SHT_NOBITS):
                assert bytes(mine.data) == theirs.data()
        symtab = other.get_section(image.symtab)
        for ours, symbol in zip(image.symbols, symtab.iter_symbols(), strict=True):
            if ours.type != elf.STT_SECTION:
                assert (ours.name, ours.value, ours.size) == (
                    symbol.name, symbol["st_value"], symbol["st_size"]
                )  # fmt: skip
        relocations = section_of(image, ".rela.text")
        assert [tuple(r) for r in image.relocations(relocations)] == [
            (r["r_offset"], r["r_info_type"], r["r_info_sym"], r["r_addend"])
            for r in other.get_section(relocations.index).iter_relocations()
        ]


def test_modinfo_and_versions_are_not_loaded(image: ModuleImage) -> None:
    assert image.find(".modinfo") is None
    assert image.find_any(".modinfo") is not None
    late = image.find(".data..ro_after_init")
    assert late is not None and late.flags & elf.SHF_RO_AFTER_INIT


def test_kinds_of_symbols(image: ModuleImage) -> None:
    kinds = {symbol.name: image.kind(symbol) for symbol in image.symbols}
    expected = {
        "visible": "t", "helper": "t", "counter": "d", "zeroed": "b", "license": "?",
        "_printk": "U", "maybe": "w",
    }  # fmt: skip
    assert {name: kinds[name] for name in expected} == expected


def test_symbols_that_are_kept_after_init(image: ModuleImage) -> None:
    core = {symbol.name for i, symbol in enumerate(image.symbols) if image.is_core(i)}
    assert {"visible", "helper", "counter", "zeroed", "cleanup_module"} <= core
    assert not core & {"init_module", "starting", "_printk", "license"}


def test_a_live_patch_keeps_all_its_symbols(tmp_path: Path) -> None:
    source = SOURCE + 'section(".modinfo") static const char livepatch[] = "livepatch=Y";'
    image = ModuleImage.parse(compiled(source, tmp_path))
    assert image.is_livepatch
    assert all(image.is_core(i) for i in range(len(image.symbols)))


def test_sections_with_relocations(image: ModuleImage) -> None:
    targets = [image.sections[s.info].name for s in image.relocation_sections()]
    assert set(targets) >= {".text", ".init.text", ".exit.text", ".data"}
    assert ".modinfo" not in targets


def test_percpu_data_is_set_apart_on_smp(tmp_path: Path) -> None:
    data = compiled(SOURCE + 'section(".data..percpu") int per_cpu_counter = 1;', tmp_path)
    alone, smp = ModuleImage.parse(data), ModuleImage.parse(data, smp=True)
    assert alone.percpu == 0
    assert smp.sections[smp.percpu].name == ".data..percpu"
    index = next(i for i, s in enumerate(smp.symbols) if s.name == "per_cpu_counter")
    assert (alone.kind(alone.symbols[index]), smp.kind(smp.symbols[index])) == ("d", "a")
    assert smp.percpu in layout(alone).places
    assert smp.percpu not in layout(smp).places
    assert smp.is_core(index)


# -- what the kernel refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "place", "value", "line"),
    [
        ("B", 0, 0x7E, "Invalid ELF header magic: != \x7fELF"),
        ("<H", 16, 2, "Invalid ELF header type: 2 != 1"),
        ("<H", 18, 183, "Invalid architecture in ELF header: 183"),
        ("<H", 58, 40, "Invalid ELF section header size"),
        ("<Q", 40, 1 << 40, "Invalid ELF section header overflow"),
        ("<Q", 40, (1 << 64) - 1, "Invalid ELF section header overflow"),
        ("<H", 60, 0xFFFF, "Invalid ELF section header overflow"),
        ("<H", 62, 0, "Invalid ELF section name index: 0 || e_shstrndx (0) >= e_shnum ("),
        ("<H", 62, 0xFFF, "Invalid ELF section name index: 4095 || e_shstrndx (4095) >= e_shnum ("),
    ],
)  # fmt: skip
def test_headers(data: bytes, fmt: str, place: int, value: int, line: str) -> None:
    error = refused(changed(data, fmt, place, value))
    assert str(error).startswith(line)
    assert error.level == 3


def test_truncated_files(data: bytes) -> None:
    assert str(refused(b"")) == "Invalid ELF header len 0"
    assert str(refused(data[:63])) == "Invalid ELF header len 63"
    for length in range(64, len(data), 97):
        refused(data[:length])


@pytest.mark.parametrize(
    ("section", "fmt", "field", "value", "line"),
    [
        (".shstrtab", "<Q", 24, 1 << 63, "Invalid ELF section hdr(type 3)"),
        (".shstrtab", "<Q", 32, 0, "empty section name table"),
        (".shstrtab", "<Q", 32, 3, "ELF Spec violation: section name table isn't null terminated"),
        ("", "<I", 4, 1, "ELF Spec violation: section 0 type(1)!=SH_NULL or non-zero len or addr"),
        (".symtab", "<I", 40, 0, "Invalid ELF sh_link!=SHN_UNDEF(0) or (sh_link(0) >= hdr->"),
        (".symtab", "<I", 40, 9999, "Invalid ELF sh_link!=SHN_UNDEF(9999) or (sh_link(9999) >= "),
        (".text", "<Q", 32, (1 << 64) - 1, "Invalid ELF section in module (section 1 type 1)"),
        (".text", "<I", 0, 1 << 20, "Invalid ELF section name in module (section 1 type 1)"),
    ],
)  # fmt: skip
def test_section_headers(
    data: bytes, section: str, fmt: str, field: int, value: int, line: str
) -> None:
    place = struct.unpack_from("<Q", data, 40)[0] + field
    if section:
        place = header_place(data, section, field)
    assert str(refused(changed(data, fmt, place, value))).startswith(line)


def test_without_symbols(data: bytes) -> None:
    error = refused(changed(data, "<I", header_place(data, ".symtab", 4), elf.SHT_PROGBITS))
    assert (str(error), error.level) == ("sample: module has no symbols (stripped?)", 4)


def test_without_this_module(tmp_path: Path) -> None:
    no_module = "int nothing;"
    error = refused(compiled(no_module, tmp_path))
    assert str(error) == "(missing .modinfo section or name field): No module found in object"
    assert error.level == 4


def test_the_name_in_the_struct_is_the_second_choice(tmp_path: Path) -> None:
    source = (
        "__attribute__((section(\".gnu.linkonce.this_module\"))) char m[704] = {[24] = 'm', '1'};"
    )
    assert ModuleImage.parse(compiled(source, tmp_path)).name == "m1"


def test_rel_relocations(data: bytes) -> None:
    image = ModuleImage.parse(changed(data, "<I", header_place(data, ".rela.text", 4), elf.SHT_REL))
    with pytest.raises(ElfError, match="module sample: REL relocation unsupported"):
        list(image.relocation_sections())


def test_names_outside_the_string_table(data: bytes) -> None:
    symtab = ModuleImage.parse(data)
    place = struct.unpack_from("<Q", data, header_place(data, ".symtab", 24))[0]
    image = ModuleImage.parse(changed(data, "<I", place + 3 * 24, 1 << 30))
    with pytest.raises(ElfError, match=r"Invalid ELF symbol name in module \(symbol 3\)"):
        _ = image.symbols
    assert len(symtab.symbols) > 3


# -- layout ---------------------------------------------------------------------------------------


def test_layout(image: ModuleImage) -> None:
    plan = layout(image, kallsyms=False)

    def at(name: str) -> Place:
        section = image.find(name)
        assert section is not None
        return plan.places[section.index]

    assert at(".text") == Place(False, 0)
    assert not at(".exit.text").init
    assert at(".exit.text").offset < plan.core.text_size == 4096
    assert at(".gnu.linkonce.this_module").offset >= plan.core.ro_after_init_size
    assert plan.core.text_size <= at(".rodata.str1.1").offset < plan.core.ro_size == 8192
    assert at(".data..ro_after_init").offset == plan.core.ro_size
    assert plan.core.ro_after_init_size == 12288
    assert at(".bss").offset + 4000 <= plan.core.size == 5 * 4096
    assert at(".init.text") == Place(True, 0)
    assert at(".init.data") == Place(True, 4096)
    assert plan.init == Part(8192, 4096, 4096, 4096)
    for index, place in plan.places.items():
        assert place.offset % max(1, image.sections[index].addralign) == 0


def test_layout_with_symbols(image: ModuleImage) -> None:
    plain, full = layout(image, kallsyms=False), layout(image)
    assert full.places == plain.places
    assert full.core._replace(size=plain.core.size) == plain.core
    assert full.core.size - plain.core.size in (0, 4096)
    assert full.init.size == plain.init.size + 4096


def test_a_module_without_an_init_part(tmp_path: Path) -> None:
    source = '__attribute__((section(".gnu.linkonce.this_module"))) char m[704] = "";'
    plan = layout(ModuleImage.parse(compiled(source, tmp_path)), kallsyms=False)
    assert plan.init == Part()
    assert isinstance(plan, Layout)


def test_writable_code(data: bytes) -> None:
    image = ModuleImage.parse(changed(data, "<Q", header_place(data, ".text", 8), 7))
    with pytest.raises(ElfError, match=r"section .text \(index 1\) has invalid WRITE\|EXEC flags"):
        layout(image)


def test_a_module_that_is_too_large(data: bytes) -> None:
    image = ModuleImage.parse(changed(data, "<Q", header_place(data, ".bss", 32), 1 << 60))
    with pytest.raises(ElfError) as info:
        layout(image)
    assert info.value.errno == errno.ENOMEM


# -- relocations ----------------------------------------------------------------------------------

BASE = 0xFFFFFFFFA0000000

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]
Relocate = Callable[[str, Iterable[Relocation], Sequence[int], int, int, Read, Write], None]


class Target:
    """A section in memory."""

    def __init__(self, size: int = 64) -> None:
        self.data = bytearray(size)

    def read(self, addr: int, size: int) -> bytes:
        return bytes(self.data[addr - BASE : addr - BASE + size])

    def write(self, addr: int, data: bytes) -> None:
        self.data[addr - BASE : addr - BASE + len(data)] = data

    def apply(
        self, type: int, value: int, addend: int = 0, do: Relocate = apply_relocations
    ) -> bytes:
        do(
            "sample",
            [Relocation(8, type, 1, addend)],
            [0, value],
            BASE,
            len(self.data),
            self.read,
            self.write,
        )
        assert not any(self.data[:8])
        return bytes(self.data[8:16])


@pytest.mark.parametrize(
    ("type", "value", "addend", "result"),
    [
        (elf.R_X86_64_NONE, BASE, 0, 0),
        (elf.R_X86_64_64, BASE, 5, BASE + 5),
        (elf.R_X86_64_32, 0x80000000, 1, 0x80000001),
        (elf.R_X86_64_32S, BASE, -1, 0x9FFFFFFF),
        (elf.R_X86_64_PC32, BASE + 0x100, -4, 0x100 - 8 - 4),
        (elf.R_X86_64_PLT32, BASE, -4, 0x100000000 - 12),
        (elf.R_X86_64_PC64, BASE, 0, (1 << 64) - 8),
    ],
)
def test_relocations(type: int, value: int, addend: int, result: int) -> None:
    target = Target()
    assert target.apply(type, value, addend) == result.to_bytes(8, "little")
    target.apply(type, value, addend, clear_relocations)
    assert not any(target.data)


@pytest.mark.parametrize(
    ("type", "value", "printed"),
    [
        (elf.R_X86_64_32, BASE, "ffffffffa0000000"),
        (elf.R_X86_64_32, 1 << 32, "100000000"),
        (elf.R_X86_64_32S, 0x80000000, "80000000"),
        (elf.R_X86_64_32S, BASE - (1 << 32), "fffffffea0000000"),
    ],
)
def test_overflow(type: int, value: int, printed: str) -> None:
    with pytest.raises(ElfError) as info:
        Target().apply(type, value)
    assert info.value.errno == errno.ENOEXEC
    assert info.value.lines == (
        f"module: overflow in relocation type {type} val {printed}",
        "module: `sample' likely not compiled with -mcmodel=kernel",
    )


def test_a_place_is_relocated_once() -> None:
    target = Target()
    target.apply(elf.R_X86_64_64, BASE)
    with pytest.raises(
        ElfError, match=r"existing value is nonzero for type 1, .* val ffffffffa0000000"
    ):
        target.apply(elf.R_X86_64_64, BASE)
    with pytest.raises(ElfError, match="existing value does not match expected value for type 1,"):
        target.apply(elf.R_X86_64_64, BASE + 1, do=clear_relocations)
    assert target.apply(elf.R_X86_64_64, BASE, do=clear_relocations) == bytes(8)


def test_relocations_that_cannot_be_applied() -> None:
    with pytest.raises(ElfError, match="module: sample: Unknown rela relocation: 99"):
        Target().apply(99, 0)
    with pytest.raises(ElfError, match="outside of its section"):
        Target(10).apply(elf.R_X86_64_PC32, 0)
    with pytest.raises(ElfError, match="outside of its section"):
        target = Target()
        relocations = [Relocation(0, elf.R_X86_64_64, 2, 0)]
        apply_relocations("sample", relocations, [0, 0], BASE, 64, target.read, target.write)


def test_it_links_as_ld_does(data: bytes, tmp_path: Path) -> None:
    """All of the module's text, relocated here and by ld."""
    image = ModuleImage.parse(data)
    text = image.find(".text")
    assert text is not None
    (tmp_path / "module.ko").write_bytes(data)
    (tmp_path / "script").write_text(
        f"SECTIONS {{ . = {BASE:#x}; .text : {{ *(.text) }} . += 4096; .rest : {{ *(.*) }} }}"
    )
    symbols = [f"--defsym={name}={BASE - 4096:#x}" for name in ("_printk", "maybe")]
    command = ["ld", "-T", "script", "-e", "visible", *symbols, "module.ko", "-o", "linked"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    with (tmp_path / "linked").open("rb") as file:
        linked = ELFFile(file)
        symtab = linked.get_section_by_name(".symtab")
        names = {s.name: s["st_value"] for s in symtab.iter_symbols() if s.name}
        target = Target(text.size)
        target.data[:] = text.data
        relocations = [
            r
            for r in image.relocations(section_of(image, ".rela.text"))
            if image.symbols[r.symbol].name in names
        ]
        values = [names.get(symbol.name, 0) for symbol in image.symbols]
        apply_relocations("sample", relocations, values, BASE, text.size, target.read, target.write)
        expected = linked.get_section_by_name(".text").data()
        assert relocations
        for relocation in relocations:
            place = slice(relocation.offset, relocation.offset + 4)
            assert target.data[place] == expected[place]


# -- damage ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=2000)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 1 << 20),
            st.sampled_from((0, 1, 2, 7, 0x7F, 0x80, 0xFF)) | st.integers(0, 255),
        ),
        min_size=1,
        max_size=8,
    ),
    in_headers=st.booleans(),
    cut=st.none() | st.integers(0, 1 << 16),
)
@example(changes=[(0, 0)], in_headers=False, cut=None)
def test_damage_is_refused_and_nothing_else(
    data: bytes, changes: list[tuple[int, int]], in_headers: bool, cut: int | None
) -> None:
    copy = bytearray(data)
    start = struct.unpack_from("<Q", data, 40)[0] if in_headers else 0
    for place, value in changes:
        copy[start + place % (len(data) - start)] = value
    if cut is not None:
        del copy[cut % len(copy) :]
    try:
        image = ModuleImage.parse(bytes(copy))
        plan = layout(image)
        for symbol in image.symbols:
            image.kind(symbol)
        for section in image.relocation_sections():
            target, size = image.sections[section.info], image.sections[section.info].size
            assert target.index in plan.places or target.flags & elf.SHF_ALLOC
            memory = Target(min(size, 1 << 16))
            values = [0] * len(image.symbols)
            apply_relocations(image.name, image.relocations(section), values, BASE,
                              min(size, 1 << 16), memory.read, memory.write)  # fmt: skip
    except ElfError as error:
        assert error.errno in (errno.ENOEXEC, errno.ENOMEM)
