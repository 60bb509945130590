# SPDX-License-Identifier: GPL-2.0-or-later
"""The module build: the content of a .ko, and the errors."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Symbol, SymbolTableSection

from klpfs.modules import kbuild, modpost

LICENSE = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'

HELLO = """\
#include <linux/kernel.h>
#include <linux/module.h>

static int times = 1;
module_param(times, int, 0644);
MODULE_PARM_DESC(times, "how often (default=1)");

static noinline void greet(int n)
{
	WARN_ON(n < 0);
	WARN(n > 100, "%d greetings\\n", n);
	while (n-- > 0)
		pr_info("hello\\n");
}

static int __init hello_init(void)
{
	greet(times);
	return 0;
}

static void __exit hello_exit(void)
{
	pr_info("bye\\n");
}

module_init(hello_init);
module_exit(hello_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Says hello");
MODULE_ALIAS("greeter");
"""

PATCH = """\
#include <linux/livepatch.h>
#include <linux/module.h>

static int new_answer(void)
{
	return 42;
}

static struct klp_func funcs[] = { { .old_name = "answer", .new_func = new_answer, }, { } };
static struct klp_object objs[] = { { .name = "oracle", .funcs = funcs, }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };

static int patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"""


@pytest.fixture(autouse=True)
def _messages_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


class Ko:
    """A .ko as the loader reads it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.elf = ELFFile(BytesIO(file.read()))
        symtab = self.elf.get_section_by_name(".symtab")
        assert isinstance(symtab, SymbolTableSection)
        self.symtab = symtab

    def data(self, section: str) -> bytes:
        found = self.elf.get_section_by_name(section)
        assert found is not None, f"no section {section}"
        return bytes(found.data())

    def relocations(self, section: str) -> dict[int, tuple[str, int]]:
        """Return {offset: (section, address in it)} of the targets, ("", 0) if undefined."""
        table = self.elf.get_section_by_name(f".rela{section}")
        assert isinstance(table, RelocationSection)
        found = {}
        for reloc in table.iter_relocations():
            symbol = self.symtab.get_symbol(reloc["r_info_sym"])
            place, address = self._place(symbol)
            found[reloc["r_offset"]] = (place, address + reloc["r_addend"])
        return found

    def names(self, section: str) -> dict[int, str]:
        """Return {offset: name of the symbol} of the relocations."""
        table = self.elf.get_section_by_name(f".rela{section}")
        assert isinstance(table, RelocationSection)
        return {
            reloc["r_offset"]: self.symtab.get_symbol(reloc["r_info_sym"]).name
            for reloc in table.iter_relocations()
        }

    def _place(self, symbol: Symbol) -> tuple[str, int]:
        index = symbol["st_shndx"]
        return (
            ("", 0)
            if index == "SHN_UNDEF"
            else (self.elf.get_section(index).name, symbol["st_value"])
        )

    def symbol(self, name: str) -> tuple[str, int]:
        """Return the section of a symbol, and its offset there."""
        symbols = self.symtab.get_symbol_by_name(name)
        assert symbols is not None
        return self._place(symbols[0])

    def string(self, section: str, offset: int) -> str:
        data = self.data(section)
        return data[offset : data.index(b"\0", offset)].decode()

    @property
    def modinfo(self) -> list[tuple[str, str]]:
        return list(modpost.parse_modinfo(self.data(".modinfo")))


def write(directory: Path, **sources: str) -> list[Path]:
    """Write source files; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{name}.c" for name in sources]
    for path, text in zip(paths, sources.values(), strict=True):
        path.write_text(text)
    return paths


def build_one(directory: Path, text: str, name: str = "hello", options: Sequence[str] = ()) -> Ko:
    [source] = write(directory, **{name: text})
    [ko] = kbuild.build([source], extra_cflags=options)
    return Ko(ko)


def test_a_module_is_a_relocatable_x86_64_file(tmp_path: Path) -> None:
    ko = build_one(tmp_path, HELLO)
    assert ko.elf["e_type"] == "ET_REL"
    assert ko.elf["e_machine"] == "EM_X86_64"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hello.c", "hello.ko"]


def test_modinfo(tmp_path: Path) -> None:
    assert sorted(build_one(tmp_path, HELLO).modinfo) == [
        ("alias", "greeter"),
        ("depends", ""),
        ("description", "Says hello"),
        ("license", "GPL"),
        ("name", "hello"),
        ("parm", "times:how often (default=1)"),
        ("parmtype", "times:int"),
        ("vermagic", "6.1.0-klpfs preempt mod_unload "),
    ]
    assert kbuild.VERMAGIC == "6.1.0-klpfs preempt mod_unload "
    assert kbuild.RELEASE == "6.1.0-klpfs"


@pytest.mark.skipif(shutil.which("modinfo") is None, reason="modinfo (package kmod) is missing")
def test_the_stock_modinfo_reads_it(tmp_path: Path) -> None:
    build_one(tmp_path, HELLO)
    command = ["modinfo", "-F", "vermagic", str(tmp_path / "hello.ko")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout == f"{kbuild.VERMAGIC}\n"


def test_dashes_stay_in_the_file_name_only(tmp_path: Path) -> None:
    ko = build_one(tmp_path, HELLO, "say-hello")
    assert (tmp_path / "say-hello.ko").exists()
    assert ("name", "say_hello") in ko.modinfo


def test_this_module_names_the_module_and_its_functions(tmp_path: Path) -> None:
    ko = build_one(tmp_path, HELLO)
    section = ".gnu.linkonce.this_module"
    name_offset = 24  # behind the state and the list
    assert ko.string(section, name_offset) == "hello"
    assert set(ko.names(section).values()) == {"init_module", "cleanup_module"}
    assert ko.symbol("init_module") == ko.symbol("hello_init") == (".init.text", 0)
    assert ko.symbol("cleanup_module")[0] == ".exit.text"


def test_a_module_may_have_no_functions_of_its_own(tmp_path: Path) -> None:
    ko = build_one(tmp_path, LICENSE)
    assert ko.elf.get_section_by_name(".rela.gnu.linkonce.this_module") is None


def test_every_traceable_function_begins_with_a_call_of_fentry(tmp_path: Path) -> None:
    ko = build_one(tmp_path, HELLO)
    # an __exit function is notrace
    functions = [ko.symbol("hello_init"), ko.symbol("greet")]
    assert sorted(ko.relocations("__mcount_loc").values()) == sorted(functions)
    for section, address in functions:
        assert ko.data(section)[address] == 0xE8
        assert ko.names(section)[address + 1] == "__fentry__"


def test_warnings_are_in_the_bug_table(tmp_path: Path) -> None:
    ko = build_one(tmp_path, HELLO)
    entries = list(struct.iter_unpack("<iiHH", ko.data("__bug_table")))
    relocations = ko.relocations("__bug_table")
    lines = HELLO.splitlines()
    assert [lines[line - 1].strip() for _, _, line, _ in entries] == [
        "WARN_ON(n < 0);",
        'WARN(n > 100, "%d greetings\\n", n);',
    ]
    warning, no_cut_here, taint_warn = 1 << 0, 1 << 3, 9 << 8
    assert [flags for *_, flags in entries] == [
        warning | taint_warn,
        warning | taint_warn | no_cut_here,
    ]
    for index in range(len(entries)):
        section, address = relocations[12 * index]
        assert ko.data(section)[address : address + 2] == b"\x0f\x0b"
        assert ko.string(*relocations[12 * index + 4]) == "hello.c"


def test_parameters(tmp_path: Path) -> None:
    ctypes = {"byte": "u8", "hexint": "uint", "charp": "char *", "invbool": "bool", "bint": "int"}
    plain = ["short", "ushort", "int", "uint", "long", "ulong", "ullong", "bool"]
    types = [*plain, *ctypes]
    text = LICENSE + "".join(
        f"static {ctypes.get(name, name)} p_{name};\nmodule_param(p_{name}, {name}, 0640);\n"
        for name in types
    )
    text += """\
static char text[16];
module_param_string(label, text, sizeof(text), 0444);
static int numbers[4];
static unsigned int count;
module_param_array(numbers, int, &count, 0);
static int set(const char *val, const struct kernel_param *kp) { return -EINVAL; }
module_param_call(odd, set, NULL, NULL, 0200);
"""
    ko = build_one(tmp_path, text)
    param = struct.Struct("<QQQHbBxxxxQ")  # struct kernel_param
    found = {}
    relocations = ko.relocations("__param")
    for index, (_, _, _, perm, level, flags, _) in enumerate(param.iter_unpack(ko.data("__param"))):
        start = index * param.size
        found[ko.string(*relocations[start])] = perm
        assert relocations[start + 8] == ko.symbol("__this_module")
        assert (level, flags) == (-1, 0)
    assert found == {
        **{f"p_{name}": 0o640 for name in types}, "label": 0o444, "numbers": 0, "odd": 0o200,
    }  # fmt: skip
    parmtypes = dict(value.split(":") for tag, value in ko.modinfo if tag == "parmtype")
    assert parmtypes["p_charp"] == "charp"
    assert parmtypes["label"] == "string"
    assert parmtypes["numbers"] == "array of int"
    assert "odd" not in parmtypes


def test_a_parameter_of_another_type_does_not_compile(tmp_path: Path) -> None:
    text = LICENSE + "static long wide;\nmodule_param(wide, int, 0);\n"
    with pytest.raises(kbuild.CompileError, match="-Werror=incompatible-pointer-types"):
        build_one(tmp_path, text)


def test_exports_and_depends(tmp_path: Path) -> None:
    sources = write(
        tmp_path,
        user=LICENSE + "int answer(void);\nint init_module(void) { return answer(); }\n",
        oracle=LICENSE + "int answer(void);\nint answer(void) { return 7; }\n"
        "EXPORT_SYMBOL_GPL(answer);\nint other;\nEXPORT_SYMBOL(other);\n",
    )
    user, oracle = map(Ko, kbuild.build(sources))
    assert ("depends", "oracle") in user.modinfo
    assert ("depends", "") in oracle.modinfo
    for section, name in (("__ksymtab_gpl", "answer"), ("__ksymtab", "other")):
        assert len(oracle.data(section)) == 12  # struct kernel_symbol
        entry = oracle.relocations(section)
        assert entry[0] == oracle.symbol(name)
        assert entry[4][0] == "__ksymtab_strings"
        # the members of an entry are relative to their own addresses
        assert oracle.string(*entry[4]) == name
    assert not any(".discard" in section.name for section in oracle.elf.iter_sections())


def test_the_order_of_exports_is_that_of_their_names(tmp_path: Path) -> None:
    names = ["zebra", "ant", "mouse"]
    text = LICENSE + "".join(f"int {name};\nEXPORT_SYMBOL({name});\n" for name in names)
    exported = build_one(tmp_path, text).names("__ksymtab")
    assert [exported[offset] for offset in (0, 12, 24)] == sorted(names)


def test_a_module_of_several_sources(tmp_path: Path) -> None:
    sources = write(
        tmp_path / "src",
        a=LICENSE + "int b(void);\nint init_module(void) { return b(); }\n",
        b="#include <linux/module.h>\nint b(void);\n"
        "int b(void) { WARN_ON(1); return 0; }\nchar *me = KBUILD_MODNAME;\n",
    )
    steps: list[str] = []
    path = kbuild.build_module("two-parts", sources, tmp_path / "out", on_step=steps.append)
    assert path == tmp_path / "out" / "two-parts.ko"
    ko = Ko(path)
    assert ("name", "two_parts") in ko.modinfo
    assert b"two_parts\0" in ko.data(".rodata.str1.1")
    assert steps == [
        "CC [M]  a.o",
        "CC [M]  b.o",
        "LD [M]  two-parts.o",
        "MODPOST",
        "CC [M]  two-parts.mod.o",
        "LD [M]  two-parts.ko",
    ]


def test_a_live_patch(tmp_path: Path) -> None:
    ko = build_one(tmp_path, PATCH, "patch")
    assert ("livepatch", "Y") in ko.modinfo
    assert "klp_enable_patch" in {
        symbol.name for symbol in ko.symtab.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"
    }
    data = ko.relocations(".data")
    patch = ko.symbol("patch")[1]
    assert data[patch] == ko.symbol("__this_module")  # klp_patch.mod
    funcs = ko.symbol("funcs")[1]
    assert ko.string(*data[funcs]) == "answer"
    assert data[funcs + 8] == ko.symbol("new_answer")


def test_the_same_input_makes_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for place in ("here", "a/longer/path"):
        directory = tmp_path / place
        [source] = write(directory, hello=HELLO)
        monkeypatch.chdir(directory)
        for name in (source, Path("hello.c")):
            [plain] = kbuild.build([name], directory / "out")
            [debug] = kbuild.build([name], directory / "debug", debug=True)
            made.append((plain.read_bytes(), debug.read_bytes()))
    assert len(set(made)) == 1
    plain_bytes, debug_bytes = made[0]
    assert b".debug_info" in debug_bytes
    assert b".debug_info" not in plain_bytes
    assert str(tmp_path).encode() not in debug_bytes


def test_macros_and_options(tmp_path: Path) -> None:
    [source] = write(
        tmp_path, m=LICENSE + "MODULE_VERSION(VERSION);\n#ifndef FLAG\n#error no flag\n#endif\n"
    )
    [path] = kbuild.build([source], defines={"VERSION": '"7"', "FLAG": None})
    assert ("version", "7") in Ko(path).modinfo
    with pytest.raises(kbuild.CompileError, match="no flag"):
        kbuild.build([source], extra_cflags=['-DVERSION="7"'])


def test_warnings_are_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = LICENSE + "static int unused(void) { return 0; }\n"
    [source] = write(tmp_path, w=text)
    messages: list[str] = []
    kbuild.build([source], on_message=messages.append)
    [message] = messages
    assert f"{source}:3:12: warning:" in message
    kbuild.build([source])
    assert capsys.readouterr().err == message


def test_errors_are_the_compilers_own_and_all_of_them(tmp_path: Path) -> None:
    sources = write(tmp_path, good=LICENSE, bad=LICENSE + "int x = y;\n", worse="#error worse\n")
    with pytest.raises(kbuild.CompileError) as caught:
        kbuild.build(sources, tmp_path / "out")
    text = str(caught.value)
    assert f"{tmp_path}/bad.c:3:9: error:" in text
    assert "    3 | int x = y;\n      |         ^\n" in text
    assert "error: #error worse" in text
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(kbuild.CompileError, match=r"nowhere\.c: No such file or directory"):
        kbuild.build([tmp_path / "nowhere.c"])


def test_a_module_must_have_a_license(tmp_path: Path) -> None:
    sources = write(tmp_path, free=LICENSE, none="#include <linux/module.h>\n")
    with pytest.raises(kbuild.CompileError) as caught:
        kbuild.build(sources)
    assert str(caught.value) == "ERROR: modpost: missing MODULE_LICENSE() in none.o\n"
    assert not (tmp_path / "free.ko").exists()


def test_a_symbol_is_exported_once(tmp_path: Path) -> None:
    text = LICENSE + "int x;\nEXPORT_SYMBOL(x);\n"
    with pytest.raises(
        kbuild.CompileError, match="'x' exported twice. Previous export was in a.ko"
    ):
        kbuild.build(write(tmp_path, a=text, b=text))


def test_names_that_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a C source file"):
        kbuild.build([tmp_path / "patch.ko"])
    with pytest.raises(ValueError, match="two modules are named a_b"):
        kbuild.build([tmp_path / "a-b.c", tmp_path / "a_b.c"])


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/gcc")
    with pytest.raises(kbuild.ToolchainError, match="cannot be run .*: install gcc"):
        kbuild.build([Path("x.c")])


def test_a_compiler_without_fentry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "gcc-4.4"
    old.write_text(
        "#!/bin/sh\n"
        f"echo asked >> {tmp_path}/asked\n"
        "echo \"gcc: error: unrecognized option '-mfentry'\" >&2\n"
        "exit 1\n"
    )
    old.chmod(0o755)
    monkeypatch.setenv("CC", str(old))
    with pytest.raises(kbuild.ToolchainError, match="does not support -mfentry"):
        kbuild.compiler()


def test_a_good_compiler_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "gcc"
    wrapper.write_text(f'#!/bin/sh\necho asked >> {tmp_path}/asked\nexec gcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", str(wrapper))
    assert kbuild.compiler() == kbuild.compiler() == (str(wrapper),)
    assert (tmp_path / "asked").read_text() == "asked\n"


def headers() -> list[str]:
    return sorted(
        str(path.relative_to(kbuild.INCLUDE))
        for path in kbuild.INCLUDE.rglob("*.h")
        if path.name != "export.h"  # asm/export.h is for assembly
    )


def test_every_header_compiles_alone_and_without_a_warning(tmp_path: Path) -> None:
    """Each is compiled alone, and then all together."""
    everything = "".join(f"#include <{name}>\n" for name in headers())
    check = ["-DMODULE", '-DKBUILD_MODNAME="x"', "-Werror", "-fsyntax-only", "-x", "c", "-"]

    def run(text: str) -> str:
        command = [*kbuild.compiler(), *kbuild.CFLAGS, *check]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False
        ).stderr

    assert run(everything) == ""
    complaints = {name: run(f"#include <{name}>\n") for name in headers()}
    assert {name: text for name, text in complaints.items() if text} == {}


def upstream_sources() -> list[Path]:
    root = os.environ.get("KLPFS_LINUX_SOURCE")
    if not root:
        pytest.skip("KLPFS_LINUX_SOURCE does not name a tree of the Linux 6.1 sources")
    found = [
        path
        for directory in ("samples/livepatch", "lib/livepatch")
        for path in sorted(Path(root, directory).glob("*.c"))
    ]
    if not found:
        pytest.skip(f"no livepatch modules in KLPFS_LINUX_SOURCE={root}")
    return found


def test_the_kernels_own_modules_compile_unmodified_and_without_a_warning(tmp_path: Path) -> None:
    sources = upstream_sources()
    messages: list[str] = []
    built = kbuild.build(sources, tmp_path, on_message=messages.append)
    assert messages == []
    assert [path.name for path in built] == [f"{source.stem}.ko" for source in sources]
    assert len(built) == 17
    livepatches = [path for path in built if ("livepatch", "Y") in Ko(path).modinfo]
    assert len(livepatches) == 11
