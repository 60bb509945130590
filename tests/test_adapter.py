# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences between kernels as rows of a table: each candidate is found where its types and symbols are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_btf import compiled

from klpfs.machine import adapter as tables
from klpfs.machine.adapter import Adapter
from klpfs.machine.btf import Types
from klpfs.machine.elf import Part
from klpfs.machine.image import Symbol
from klpfs.machine.kernel.module.memory import ModuleMemory
from klpfs.machine.structs import Space, Struct
from klpfs.machine.symbols import SymbolTable

PER_CPU_OFFSET = 0x10000
AT, BASE = 0x100, 0xFFFFFFFFA0000000
CORE = Part(size=0x5000, text_size=0x1000, ro_size=0x3000, ro_after_init_size=0x4000)
INIT = Part(size=0x2000, text_size=0x1000, ro_size=0x1000, ro_after_init_size=0x1000)

OLD = """
struct task_struct { long flags; long state; };
struct mutex { long owner; };
struct module_layout { void *base; unsigned int size, text_size, ro_size, ro_after_init_size; };
struct module { int state; struct module_layout core_layout, init_layout; };
struct task_struct task; struct mutex mutex; struct module module;
"""
"""The layout of 4.5."""
NEW = """
struct task_struct { long flags; unsigned int __state; const void *cpus_ptr; };
struct mutex { int rtmutex; };
struct ftrace_regs { long regs; };
enum mod_mem_type {
    MOD_TEXT, MOD_DATA, MOD_RODATA, MOD_RO_AFTER_INIT, MOD_INIT_TEXT, MOD_INIT_DATA, MOD_INIT_RODATA,
    MOD_MEM_NUM_TYPES,
};
struct module_memory { void *base; unsigned int size; };
struct module { int state; _Bool sig_ok; struct module_memory mem[MOD_MEM_NUM_TYPES]; };
struct pcpu_hot { union { struct { void *current_task; int preempt_count; }; char pad[64]; }; };
struct task_struct task; struct mutex mutex; struct module module; struct ftrace_regs regs;
struct pcpu_hot hot; enum mod_mem_type type;
"""
"""The layout of 6.4, with CONFIG_PREEMPT_RT and CONFIG_MODULE_SIG."""


class Bytes:
    """A page of memory at address 0."""

    def __init__(self) -> None:
        self.data = bytearray(4096)

    def read(self, addr: int, size: int) -> bytes:
        return bytes(self.data[addr : addr + size])

    def write(self, addr: int, data: bytes) -> None:
        self.data[addr : addr + len(data)] = data


class Image:
    """What an adapter needs of a kernel."""

    def __init__(self, btf: bytes, *symbols: str) -> None:
        self.space = Space(Types(btf), Bytes())
        self.symbols = SymbolTable()
        self.symbols.add_image(Symbol(name, 0x40 * i, 8, "D") for i, name in enumerate(symbols, 1))
        self.adapter = Adapter(self.space, self.symbols, PER_CPU_OFFSET)

    def view(self, name: str) -> Struct:
        view: Struct = self.space.view(name, AT)
        return view


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory: Path = tmp_path_factory.mktemp("btf")
    return {"old": compiled(OLD, directory), "new": compiled(NEW, directory)}


@pytest.fixture
def old(blobs: dict[str, bytes]) -> Image:
    return Image(blobs["old"], "current_task", "__preempt_count")


@pytest.fixture
def new(blobs: dict[str, bytes]) -> Image:
    return Image(blobs["new"], "pcpu_hot")


def test_a_member_is_found_by_the_name_that_the_kernel_has(old: Image, new: Image) -> None:
    for image, member in ((old, "state"), (new, "__state")):
        task, field = image.view("struct task_struct"), image.adapter.field("task.state")
        field.set(task, 0x402)
        assert getattr(task, member) == field.get(task) == 0x402


@pytest.mark.parametrize("name", ["task.cpus_ptr", "mutex.rtmutex", "module.sig_ok"])
def test_a_member_may_be_missing(old: Image, new: Image, name: str) -> None:
    assert old.adapter.find(name) is None
    assert new.adapter.find(name) is not None
    with pytest.raises(LookupError, match=f"this kernel has no struct .*{name.split('.')[1]}"):
        old.adapter.field(name)


def test_a_name_without_a_row_is_an_error_of_the_caller(new: Image) -> None:
    with pytest.raises(KeyError):
        new.adapter.find("task.nothing")
    with pytest.raises(KeyError):
        new.adapter.per_cpu("nothing")


def test_types(old: Image, new: Image) -> None:
    assert not old.adapter.has_type("ftrace_regs")
    assert new.adapter.has_type("ftrace_regs")


def test_per_cpu_variables(old: Image, new: Image, blobs: dict[str, bytes]) -> None:
    assert old.adapter.per_cpu("current_task") == 0x40 + PER_CPU_OFFSET
    assert old.adapter.per_cpu("preempt_count") == 0x80 + PER_CPU_OFFSET
    assert new.adapter.per_cpu("current_task") == 0x40 + PER_CPU_OFFSET
    assert new.adapter.per_cpu("preempt_count") == 0x40 + 8 + PER_CPU_OFFSET
    with pytest.raises(LookupError, match="this kernel has no pcpu_hot nor current_task"):
        Image(blobs["new"]).adapter.per_cpu("current_task")


def test_functions_that_were_renamed(old: Image) -> None:
    assert old.adapter.functions("del_timer") == ("timer_delete", "del_timer")
    assert old.adapter.functions("kfree") == ("kfree",)


# -- the memory of a module -----------------------------------------------------------------------


def placed(image: Image) -> tuple[ModuleMemory, Struct]:
    memory, module = ModuleMemory(image.adapter), image.view("struct module")
    memory.set(module, "core", BASE, CORE)
    memory.set(module, "init", BASE + 0x10000, INIT)
    return memory, module


def test_memory_of_a_module_with_two_layouts(old: Image) -> None:
    _, module = placed(old)
    core, init = module.core_layout, module.init_layout
    assert (core.base, core.size, core.text_size, core.ro_size) == (BASE, 0x5000, 0x1000, 0x3000)
    assert (init.base, init.size, init.text_size) == (BASE + 0x10000, 0x2000, 0x1000)


def test_memory_of_a_module_with_an_area_for_each_kind(new: Image) -> None:
    _, module = placed(new)
    assert [(int(area.base), area.size) for area in module.mem] == [
        (BASE, 0x1000),  # MOD_TEXT
        (BASE + 0x4000, 0x1000),  # MOD_DATA
        (BASE + 0x1000, 0x2000),  # MOD_RODATA
        (BASE + 0x3000, 0x1000),  # MOD_RO_AFTER_INIT
        (BASE + 0x10000, 0x1000),  # MOD_INIT_TEXT
        (BASE + 0x11000, 0x1000),  # MOD_INIT_DATA
        (0, 0),  # MOD_INIT_RODATA
    ]


@pytest.mark.parametrize("which", ["old", "new"])
def test_what_is_asked_of_the_memory_of_a_module(
    which: str, request: pytest.FixtureRequest
) -> None:
    memory, module = placed(request.getfixturevalue(which))
    assert memory.base(module) == BASE
    assert memory.size(module, "core") == 0x5000
    assert memory.size(module, "init") == 0x2000
    assert memory.within_core(BASE, module)
    assert memory.within_core(BASE + 0x4FFF, module)
    assert not memory.within_core(BASE + 0x5000, module)
    assert not memory.within_core(BASE + 0x10000, module)
    memory.clear_init(module)
    assert (memory.size(module, "core"), memory.size(module, "init")) == (0x5000, 0)


# -- the tables -----------------------------------------------------------------------------------

ROWS = [
    (name, candidate)
    for table in (tables.MEMBERS, tables.VARIABLES, tables.FUNCTIONS, tables.TYPES)
    for name, candidates in table.items()
    for candidate in candidates
]


@pytest.mark.parametrize(("name", "candidate"), ROWS)
def test_rows_cite_version_and_commit(name: str, candidate: tables.Member) -> None:
    assert re.fullmatch(r"(\d+\.\d+)?", candidate.since)
    assert re.fullmatch(r"([0-9a-f]{12})?", candidate.commit)
    assert not candidate.commit or candidate.since


@pytest.mark.parametrize(
    "table", [tables.MEMBERS, tables.VARIABLES, tables.FUNCTIONS, tables.TYPES]
)
def test_only_the_last_candidate_may_be_older_than_live_patching(table: object) -> None:
    assert isinstance(table, dict)
    for name, candidates in table.items():
        assert all(candidate.since for candidate in candidates[:-1]), name
