# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of the embedded kernel: its content, its build and its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from klpfs.machine.btf import Types
from klpfs.machine.image import Image, embedded
from klpfs.machine.memory import PAGE_SIZE
from klpfs.modules import kbuild

TEXT_START = 0xFFFFFFFF81000000
CALL = 0xE8


@pytest.fixture(scope="module")
def image() -> Image:
    return embedded.load()


@pytest.fixture(scope="module")
def addresses(image: Image) -> dict[str, int]:
    return {symbol.name: symbol.addr for symbol in image.symbols}


def read(image: Image, address: int, size: int) -> bytes:
    for segment in image.segments:
        if segment.vaddr <= address < segment.vaddr + len(segment.data):
            return segment.data[address - segment.vaddr :][:size]
    raise AssertionError(f"{address:#x} is in no segment")


# -- what is in it --------------------------------------------------------------------------------


def test_release_and_banner(image: Image) -> None:
    assert image.release == kbuild.RELEASE
    assert image.vermagic == kbuild.VERMAGIC
    assert image.banner.startswith(f"Linux version {kbuild.RELEASE} (klpfs@klpfs) (gcc")
    assert image.banner.endswith(") #1 PREEMPT\n")
    assert len(image.build_id) == 40
    assert (image.unwinder, image.per_cpu) == ("frame_pointer", b"")


def test_no_page_is_both_writable_and_executable(image: Image) -> None:
    assert [(s.writable, s.executable) for s in image.segments] == [
        (False, True), (False, False), (True, False),
    ]  # fmt: skip
    assert image.segments[0].vaddr == TEXT_START
    assert all(segment.vaddr % PAGE_SIZE == 0 for segment in image.segments)
    ends = [segment.vaddr + segment.memsz for segment in image.segments]
    assert all(end <= after.vaddr for end, after in zip(ends, image.segments[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cmdline_proc_show", "t"), ("meminfo_proc_show", "t"), ("show_val_kb", "t"),
        ("klp_ftrace_handler", "T"), ("vsnprintf", "T"), ("seq_read_iter", "T"), ("mutex_lock", "T"),
        ("__fentry__", "T"), ("guest_return", "T"), ("__x64_sys_newuname", "T"),
        ("linux_banner", "R"), ("init_task", "D"), ("jiffies", "D"), ("klp_patches", "D"),
        ("klp_transition_patch", "B"), ("current_task", "D"), ("__preempt_count", "D"),
    ],
)  # fmt: skip
def test_symbols_have_the_letters_of_kallsyms(image: Image, name: str, kind: str) -> None:
    assert [symbol.kind for symbol in image.symbols if symbol.name == name] == [kind]


def test_symbols_are_in_order_of_their_addresses(image: Image) -> None:
    found = [symbol.addr for symbol in image.symbols]
    assert found == sorted(found)
    assert found[0] == TEXT_START


def test_jiffies_and_jiffies_64_are_one_variable(addresses: dict[str, int]) -> None:
    assert addresses["jiffies"] == addresses["jiffies_64"]


def test_every_site_is_a_call_of_fentry_at_the_start_of_a_function(
    image: Image, addresses: dict[str, int]
) -> None:
    functions = {symbol.addr for symbol in image.symbols if symbol.kind in "tT"}
    assert len(image.ftrace_sites) > 100
    assert image.ftrace_sites == sorted(set(image.ftrace_sites))
    for site in image.ftrace_sites:
        code = read(image, site, 5)
        assert code[0] == CALL
        assert site + 5 + int.from_bytes(code[1:], "little", signed=True) == addresses["__fentry__"]
        assert site in functions


@pytest.mark.parametrize(
    ("name", "traced"),
    [
        ("cmdline_proc_show", True), ("seq_printf", True), ("param_set_int", True),
        ("vsnprintf", False), ("memcpy", False), ("klp_ftrace_handler", False),
        ("ftrace_ops_list_func", False), ("ftrace_caller", False), ("mutex_lock", False),
        ("preempt_schedule_notrace", False),
    ],
)  # fmt: skip
def test_what_can_be_traced(
    image: Image, addresses: dict[str, int], name: str, traced: bool
) -> None:
    assert (addresses[name] in image.ftrace_sites) == traced


@pytest.mark.parametrize(
    ("name", "gpl_only"),
    [
        ("_printk", False), ("kfree", False), ("jiffies", False), ("param_ops_int", False),
        ("current_task", False), ("seq_printf", False), ("__fentry__", False),
        ("klp_enable_patch", True), ("klp_shadow_get", True), ("synchronize_rcu", True),
        ("param_ops_bool_enable_only", True), ("blocking_notifier_call_chain", True),
    ],
)  # fmt: skip
def test_exports(image: Image, addresses: dict[str, int], name: str, gpl_only: bool) -> None:
    assert image.exports[name] == (addresses[name], gpl_only, None, "")


@pytest.mark.parametrize(
    "name", ["saved_command_line", "cmdline_proc_show", "guest_return", "do_exit"]
)
def test_not_exported(image: Image, addresses: dict[str, int], name: str) -> None:
    assert name in addresses
    assert name not in image.exports


def test_every_export_is_a_symbol(image: Image, addresses: dict[str, int]) -> None:
    assert {name: export.addr for name, export in image.exports.items()} == {
        name: addresses[name] for name in image.exports
    }


def test_stubs_have_no_code_of_their_own(image: Image, addresses: dict[str, int]) -> None:
    assert addresses["mutex_lock"] in image.stubs
    assert addresses["vsnprintf"] not in image.stubs
    for stub in image.stubs:
        assert read(image, stub, 16) == b"\x0f\x0b" + b"\x90" * 14


@pytest.mark.parametrize("caller", ["ftrace_caller", "ftrace_regs_caller"])
def test_the_callers_can_be_copied(image: Image, addresses: dict[str, int], caller: str) -> None:
    """Only the two instructions that a copy changes are relative to their address."""
    load_ops = addresses[f"{caller}_op_ptr"]
    code = read(image, load_ops, 7)
    assert code[:3] == bytes.fromhex("488b15")  # mov disp32(%rip), %rdx
    displacement = int.from_bytes(code[3:], "little", signed=True)
    assert load_ops + 7 + displacement == addresses["function_trace_op"]
    call = addresses[caller.replace("caller", "call")]
    code = read(image, call, 5)
    assert code[0] == CALL
    assert call + 5 + int.from_bytes(code[1:], "little", signed=True) == addresses["ftrace_stub"]
    assert read(image, addresses[f"{caller}_end"], 1) == b"\xc3"
    assert addresses[caller] < load_ops < call < addresses[f"{caller}_end"]


def test_initcalls_are_functions(image: Image, addresses: dict[str, int]) -> None:
    start, end = addresses["__initcall_start"], addresses["__initcall_end"]
    table = read(image, start, end - start)
    calls = [int.from_bytes(table[i : i + 8], "little") for i in range(0, len(table), 8)]
    assert addresses["proc_cmdline_init"] in calls
    assert set(calls) <= {symbol.addr for symbol in image.symbols if symbol.kind == "t"}


@pytest.mark.parametrize(
    "name",
    ["klp_patch", "klp_ops", "module", "task_struct", "ftrace_ops", "ftrace_func_entry", "seq_file",
     "file", "kiocb", "iov_iter", "kernel_param", "delayed_work", "completion", "pt_regs", "sysinfo",
     "proc_ops", "klp_state", "new_utsname", "bug_entry", "kernel_symbol"],
)  # fmt: skip
def test_types(image: Image, name: str) -> None:
    assert Types(image.btf).sizeof(f"struct {name}") > 0


# -- build and cache ------------------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "klpfs"


def test_it_is_built_once(empty_cache: Path) -> None:
    steps: list[str] = []
    first = embedded.build(steps.append)
    assert "CC      proc/cmdline.c" in steps
    assert steps[-1] == "LD      vmlinux"
    assert first.parent.parent == empty_cache
    steps.clear()
    assert embedded.build(steps.append) == first
    assert not steps
    assert [path.name for path in empty_cache.iterdir()] == [first.parent.name]  # and no other file


def test_two_builds_at_the_same_time(empty_cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: embedded.build(), range(2))
    assert first == second
    assert [path.name for path in empty_cache.iterdir()] == [first.parent.name]
    assert embedded.read(first).release == kbuild.RELEASE


def test_kernels_that_were_not_used_for_a_month_are_removed(empty_cache: Path) -> None:
    used = embedded.build().parent
    old = [empty_cache / name for name in ("embedded-0", "distribution-0-0", "somebody-else's")]
    old[0].mkdir()
    (old[0] / "vmlinux").touch()
    for path in old[1:]:
        path.touch()
    for path in (*old, used):
        os.utime(path, (0, 0))
    embedded.build()
    embedded.build(abi="3.20")
    assert used.exists()
    assert [path.exists() for path in old] == [False, False, True]


def test_the_same_sources_give_the_same_code(image: Image, empty_cache: Path) -> None:
    """Only the order of the types, and so the build id, can differ: that of gcc is random."""
    again = embedded.load()
    assert again.symbols == image.symbols
    assert [again.segments[i] for i in (0, 2)] == [image.segments[i] for i in (0, 2)]


def test_a_changed_header_is_another_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = embedded._fingerprint()
    (tmp_path / "changed.h").write_text("/* */\n")
    monkeypatch.setattr(embedded, "INCLUDE", tmp_path)
    assert embedded._fingerprint() != before


def fake_gcc(directory: Path, script: str) -> dict[str, str]:
    """Return an environment in which ``gcc`` is ``script``."""
    gcc = directory / "gcc"
    gcc.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    gcc.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CC"}
    return environment | {"PATH": str(directory), "XDG_CACHE_HOME": str(directory / "cache")}


def error_of_loading(environment: dict[str, str]) -> str:
    program = (
        "from klpfs.machine.image import embedded\n"
        "try: embedded.load()\n"
        "except embedded.EmbeddedKernelError as error: print(error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=Path(embedded.__file__).parents[2],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_no_compiler(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CC"}
    said = error_of_loading(environment | {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert said.startswith("The C compiler 'gcc' cannot be run")
    assert "install gcc" in said


def test_a_compiler_without_mfentry(tmp_path: Path) -> None:
    script = """
if '-mfentry' in sys.argv:
    sys.exit("gcc: error: unrecognized command-line option '-mfentry'")
print('4.4.0')"""
    said = error_of_loading(fake_gcc(tmp_path, script))
    assert "does not support -mfentry" in said
    assert said.count("\n") == 1


def test_a_compiler_that_does_not_compile_is_quoted(tmp_path: Path) -> None:
    script = """
if '-D__KERNEL__' in sys.argv:
    sys.exit('internal compiler error: out of luck')
print('/bin/true')"""
    said = error_of_loading(fake_gcc(tmp_path, script))
    first, *quoted = said.splitlines()
    assert first == "The embedded kernel does not compile with 'gcc':"
    assert quoted == ["internal compiler error: out of luck"]
    left = [path.name for path in (tmp_path / "cache" / "klpfs").iterdir()]
    assert left == []
