# SPDX-License-Identifier: GPL-2.0-or-later
"""``--abi``: the livepatch APIs of 3.20, 4.12 and 5.1, and kernels without one, through a mount."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from klpfs.cli.example import SAMPLES
from klpfs.machine.image import embedded
from klpfs.machine.kernel.livepatch.abi import ABIS
from klpfs.modules import abi as abis
from klpfs.modules import kbuild
from klpfs.pytest_plugin import Machine

MODULES = Path(__file__).parent / "modules"
LIVEPATCH = "sys/kernel/livepatch"
PATCHED = "this has been live patched\n"
ANSWER = "sys/module/klp_answer/parameters/answer"

Mount = Callable[..., Machine]


class Patches:
    """Patches for one ABI with the register and enable API, and a machine to use them on."""

    def __init__(self, machine: Machine, directory: Path, abi: str) -> None:
        self.machine = machine
        self.directory = directory
        self._abi = abi

    def build(self, source: str | Path, name: str | None = None, **defines: str) -> Path:
        return kbuild.build_module(
            name or Path(source).stem, [MODULES / source], self.directory,
            defines=defines, abi=self._abi,
        )  # fmt: skip

    def insmod(self, source: str | Path, name: str | None = None, **defines: str) -> None:
        self.machine.insmod(self.build(source, name, **defines))

    def patch(
        self, name: str, version: int, function: str = "answer", module: str | None = "klp_answer",
        **defines: str,
    ) -> None:  # fmt: skip
        """Load a patch without registering it."""
        quoted = f'"{module}"' if module else "NULL"
        self.insmod(
            "klp_registered.c", name,
            OBJECT=quoted, FUNCTION=f'"{function}"', VERSION=str(version), **defines,
        )  # fmt: skip

    def call(self, name: str, *functions: str) -> None:
        """Call ``klp_<function>_patch()`` of a patch. Raise OSError with its errno."""
        for function in functions:
            self.machine.write(f"sys/module/{name}/parameters/call", function)

    def enable(self, name: str, on: bool = True) -> None:
        """Enable a patch through sysfs."""
        self.machine.write(f"{LIVEPATCH}/{name}/enabled", f"{int(on)}\n")

    def enabled(self, *names: str) -> list[int]:
        return [int(self.machine.read(f"{LIVEPATCH}/{name}/enabled")) for name in names]

    def answer(self) -> int:
        return int(self.machine.read(ANSWER))

    def log(self) -> list[str]:
        """Return the new log lines of livepatch."""
        prefix = "livepatch: "
        lines = [line for line in self.machine.dmesg() if line.startswith(prefix)]
        self.machine.clear_log()
        return [line.removeprefix(prefix) for line in lines]


@pytest.fixture
def first(klpfs_mount: Mount, tmp_path: Path) -> Patches:
    """Return a machine with the 3.20 ABI and the target module."""
    patches = Patches(klpfs_mount("--virtual-time", "--abi", "3.20"), tmp_path, "3.20")
    patches.insmod("klp_answer.c")
    return patches


@pytest.fixture
def second(klpfs_mount: Mount, tmp_path: Path) -> Patches:
    """Return a machine with the 4.12 ABI, which has transitions, and the target module."""
    patches = Patches(klpfs_mount("--virtual-time", "--abi", "4.12"), tmp_path, "4.12")
    patches.insmod("klp_answer.c")
    return patches


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def tree(machine: Machine) -> set[str]:
    root = machine.path(LIVEPATCH)
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# -- the sample -----------------------------------------------------------------------------------


def test_the_sample_of_the_first_abi(klpfs_mount: Mount, tmp_path: Path) -> None:
    machine = klpfs_mount("--abi", "3.20")
    original = machine.read("proc/cmdline")
    sample = machine.build(MODULES / "3.20/livepatch-sample.c", output=tmp_path, abi="3.20")
    machine.insmod(sample)
    assert machine.read("proc/cmdline") == PATCHED
    assert tree(machine) == {
        "livepatch_sample",
        "livepatch_sample/enabled",
        "livepatch_sample/vmlinux",
        "livepatch_sample/vmlinux/cmdline_proc_show",
    }
    first = machine.read("machine/disasm/cmdline_proc_show").splitlines()[1]
    assert "call" in first and "klp_ftrace_handler" in first
    with refused(errno.EAGAIN):  # a task may still be in there
        machine.rmmod("livepatch_sample")
    machine.rmmod("livepatch_sample", force=True)
    assert machine.read("proc/cmdline") == original
    assert tree(machine) == set()
    assert machine.dmesg()[-5:] == [
        "livepatch_sample: loading out-of-tree module taints kernel.",
        "livepatch: tainting kernel with TAINT_LIVEPATCH",
        "livepatch: enabling patch 'livepatch_sample'",
        "Disabling lock debugging due to kernel taint",
        "livepatch: disabling patch 'livepatch_sample'",
    ]
    assert int(machine.read("proc/sys/kernel/tainted")) & 1 << 15
    assert machine.read("proc/version").startswith("Linux version 3.20.0-klpfs ")


# -- 3.20: registering, enabling, disabling, unregistering ----------------------------------------


def test_a_registered_patch_is_disabled_until_it_is_enabled(first: Patches) -> None:
    first.patch("p", 2)
    assert tree(first.machine) == set()
    first.call("p", "register")
    assert first.enabled("p") == [0]
    assert first.answer() == 1
    first.call("p", "enable")
    assert (first.enabled("p"), first.answer()) == ([1], 2)
    first.call("p", "disable")
    assert (first.enabled("p"), first.answer()) == ([0], 1)
    first.enable("p")
    assert (first.enabled("p"), first.answer()) == ([1], 2)
    first.enable("p", False)
    first.call("p", "unregister")
    assert tree(first.machine) == set()
    first.call("p", "register", "enable")
    assert first.answer() == 2
    assert first.log() == [
        "tainting kernel with TAINT_LIVEPATCH",
        "enabling patch 'p'", "disabling patch 'p'",
        "enabling patch 'p'", "disabling patch 'p'",
        "enabling patch 'p'",
    ]  # fmt: skip


def test_calls_that_do_not_fit_the_state_of_the_patch(first: Patches) -> None:
    first.patch("p", 2)
    for call in ("enable", "disable", "unregister"):
        with refused(errno.EINVAL):
            first.call("p", call)
    first.call("p", "register")
    with refused(errno.EINVAL):
        first.call("p", "disable")
    first.call("p", "enable")
    with refused(errno.EBUSY):
        first.call("p", "unregister")
    with refused(errno.EINVAL):
        first.call("p", "enable")
    assert any(
        re.fullmatch(r"WARNING: .* __klp_enable_patch", line) for line in first.machine.dmesg()
    )
    with refused(errno.EINVAL):
        first.call("p", "register")
    assert "tried to init an initialized object" in "".join(first.machine.dmesg())
    assert first.answer() == 2


def test_enabled_takes_the_numbers_0_and_1(first: Patches) -> None:
    first.patch("p", 2)
    first.call("p", "register")
    for text in ("y", "2", "\n", "-1", "1x", "on"):
        with refused(errno.EINVAL):
            first.machine.write(f"{LIVEPATCH}/p/enabled", text)
    first.machine.write(f"{LIVEPATCH}/p/enabled", "+01\n")
    assert first.enabled("p") == [1]
    with refused(errno.EINVAL):  # it is enabled already
        first.machine.write(f"{LIVEPATCH}/p/enabled", "1")


def test_three_patches_of_one_function_come_off_in_order(first: Patches) -> None:
    for version, name in enumerate(("a", "b", "c"), 2):
        first.patch(name, version)
        first.call(name, "register")
    with refused(errno.EBUSY):
        first.call("b", "enable")
    with refused(errno.EBUSY):
        first.enable("c")
    for version, name in enumerate(("a", "b", "c"), 2):
        first.enable(name)
        assert first.answer() == version
    with refused(errno.EBUSY):
        first.call("a", "disable")
    with refused(errno.EBUSY):
        first.enable("b", False)
    assert (first.enabled("a", "b", "c"), first.answer()) == ([1, 1, 1], 4)
    for version, name in ((3, "c"), (2, "b"), (1, "a")):
        first.enable(name, False)
        assert first.answer() == version
    first.enable("a")
    first.call("b", "unregister")
    first.enable("c")  # on top of a now
    assert first.answer() == 4


def test_a_module_is_patched_when_it_comes_in_the_order_of_registering(first: Patches) -> None:
    first.machine.rmmod("klp_answer")
    for version, name in enumerate(("a", "b", "c"), 2):
        first.patch(name, version)
        first.call(name, "register")
    first.enable("a")
    first.enable("b")
    first.log()
    first.insmod("klp_answer.c")
    assert first.answer() == 3
    assert first.log() == [
        "applying patch 'a' to loading module 'klp_answer'",
        "applying patch 'b' to loading module 'klp_answer'",
    ]
    first.enable("c")
    assert first.answer() == 4
    first.log()
    first.machine.rmmod("klp_answer")
    assert first.log() == [
        f"reverting patch '{name}' on unloading module 'klp_answer'" for name in "abc"
    ]
    first.insmod("klp_answer.c")
    assert first.answer() == 4


def test_a_module_that_cannot_be_patched_is_not_refused(first: Patches) -> None:
    first.machine.rmmod("klp_answer")
    first.patch("p", 2, "no_such_function")
    first.call("p", "register", "enable")
    first.insmod("klp_answer.c")
    assert first.answer() == 1
    assert first.log()[-2:] == [
        "symbol 'no_such_function' not found in symbol table",
        "failed to apply patch 'p' to module 'klp_answer' (-22)",
    ]


def test_a_call_in_progress_does_not_delay_a_patch(first: Patches) -> None:
    machine = first.machine
    first.insmod(SAMPLES / "sleeper.c")
    machine.advance(1)
    first.patch("p", 0, "sleeper_nap", "sleeper")
    first.call("p", "register", "enable")
    assert first.enabled("p") == [1]
    assert "sleeper_nap" in machine.read(f"proc/{machine.pid_of('sleeper')}/stack")
    machine.write("sys/module/sleeper/parameters/wake", "1")
    machine.advance(10)
    assert machine.read("sys/module/sleeper/parameters/naps") == "1\n"  # the old version


def test_a_module_that_goes_by_force_takes_its_patches_along(first: Patches) -> None:
    for version, name in enumerate(("a", "b"), 2):
        first.patch(name, version)
        first.call(name, "register", "enable")
    first.machine.rmmod("a", force=True)
    assert (first.enabled("b"), first.answer()) == ([1], 3)
    first.enable("b", False)
    assert first.answer() == 1
    first.machine.rmmod("b", force=True)
    assert tree(first.machine) == set()


def test_two_versions_of_one_function_have_one_name(first: Patches) -> None:
    first.patch("p", 2, FUNC='}, { .old_name = "answer", .new_func = replacement')
    with refused(errno.EEXIST):
        first.call("p", "register")
    assert tree(first.machine) == set()
    assert first.machine.dmesg()[-1] == (
        "kobject_add_internal failed for answer with -EEXIST, don't try to register things with the "
        "same name in the same directory."
    )


def test_tasks_have_no_patch_state(first: Patches, second: Patches) -> None:
    for patches, there in ((first, False), (second, True)):
        patches.insmod(SAMPLES / "sleeper.c")
        pid = patches.machine.pid_of("sleeper")
        assert patches.machine.path(f"proc/{pid}/patch_state").exists() is there


# -- 3.20: addresses and relocations --------------------------------------------------------------


def address_of(machine: Machine, name: str) -> int:
    found = re.search(rf"^([0-9a-f]+) \S {name}$", machine.read("proc/kallsyms"), re.MULTILINE)
    assert found is not None
    return int(found[1], 16)


def test_old_addr_is_verified(first: Patches) -> None:
    machine = first.machine
    address = address_of(machine, "cmdline_proc_show")
    first.patch("wrong", 0, "cmdline_proc_show", None, FUNC=f".old_addr = {address + 16:#x}")
    with refused(errno.EINVAL):
        first.call("wrong", "register")
    assert first.log() == [
        f"symbol 'cmdline_proc_show' not found at specified address {address + 16:#018x}, "
        "kernel mismatch?"
    ]
    assert tree(machine) == set()
    first.patch("right", 0, "cmdline_proc_show", None, FUNC=f".old_addr = {address:#x}")
    first.call("right", "register", "enable")
    assert machine.read("proc/cmdline") == ""


RELOCATED = {
    "HEAD": "static int (*secret)(void); static struct klp_reloc relocs[] = { { .loc = "
    '(unsigned long)&secret, .type = 1, .name = "secret" }, { } };',
    "OBJ": ".relocs = relocs",
    "RESULT": "secret()",
}


def test_a_relocation_against_a_module_is_written_when_that_is_there(first: Patches) -> None:
    first.machine.rmmod("klp_answer")
    first.patch("p", 0, **RELOCATED)
    first.call("p", "register", "enable")
    for _ in range(2):
        first.insmod("klp_answer.c")
        assert first.answer() == 42
        first.machine.rmmod("klp_answer")


def relocation(name: str, what: str, *, loc: str = "&value", type_: int = 1) -> dict[str, str]:
    return {
        "HEAD": "static unsigned long value; static struct klp_reloc relocs[] = { { .loc = "
        f'(unsigned long){loc}, .type = {type_}, .name = "{name}", {what} }}, {{ }} }};',
        "OBJ": ".relocs = relocs",
        "RESULT": "(int)value",
    }


def test_a_relocation_against_what_is_exported_or_in_the_patch(first: Patches) -> None:
    printk = address_of(first.machine, "_printk")
    first.patch("p", 0, **relocation("_printk", ".external = 1, .addend = 4"))
    first.call("p", "register", "enable")
    assert first.answer() & 0xFFFFFFFF == printk + 4 & 0xFFFFFFFF
    first.patch("q", 0, **relocation("replacement", ".external = 1"))
    first.call("q", "register", "enable")
    replacement = re.search(
        r"^([0-9a-f]+) t replacement\t\[q\]$", first.machine.read("proc/kallsyms"), re.MULTILINE
    )
    assert replacement is not None
    assert first.answer() & 0xFFFFFFFF == int(replacement[1], 16) & 0xFFFFFFFF


def test_relocations_that_are_refused(first: Patches) -> None:
    saved = relocation("saved_command_line", ".val = 8")
    first.patch("a", 0, function="cmdline_proc_show", module=None, **saved)
    first.patch("b", 0, **relocation("secret", "", type_=9))
    first.patch("c", 0, **relocation("secret", "", loc="&klp_register_patch"))
    first.patch("d", 0, **relocation("nowhere", ".external = 1"))
    for name in "abcd":
        with refused(errno.EINVAL):
            first.call(name, "register")
    assert tree(first.machine) == set()
    log = first.log()
    assert log[0] == (
        "symbol 'saved_command_line' not found at specified address 0x0000000000000008, "
        "kernel mismatch?"
    )
    for line in log[1:3]:
        assert re.fullmatch(r"relocation failed for symbol 'secret' at 0x\w{16} \(-22\)", line)
    assert log[3:] == ["symbol 'nowhere' not found in symbol table"]


# -- 3.20: other differences ----------------------------------------------------------------------


def test_a_function_without_a_call_site_cannot_be_enabled(first: Patches) -> None:
    first.patch("p", 0, "klp_ftrace_handler", None)
    first.call("p", "register")
    with refused(errno.EINVAL):
        first.call("p", "enable")
    assert first.log()[1:] == [
        "enabling patch 'p'",
        "failed to set ftrace filter for function 'klp_ftrace_handler' (-22)",
        "disabling patch 'p'",
    ]
    assert first.enabled("p") == [0]


def test_a_patch_need_not_say_that_it_is_one(first: Patches, second: Patches) -> None:
    for patches in (first, second):
        text = (MODULES / "klp_registered.c").read_text().replace("MODULE_INFO(livepatch", "//")
        source = patches.directory / "unmarked.c"
        source.write_text(text)
        patches.insmod(str(source), OBJECT="NULL", FUNCTION='"cmdline_proc_show"', VERSION="0")
    first.call("unmarked", "register", "enable")
    with refused(errno.EINVAL):
        second.call("unmarked", "register")
    assert second.log() == ["module unmarked is not marked as a livepatch module"]


# -- 4.12 -----------------------------------------------------------------------------------------


def test_a_transition_without_atomic_replace(second: Patches) -> None:
    second.patch("a", 2)
    second.call("a", "register", "enable")
    assert tree(second.machine) == {
        "a", "a/enabled", "a/transition", "a/klp_answer", "a/klp_answer/answer,1",
    }  # fmt: skip
    assert second.answer() == 2
    with refused(errno.EAGAIN):
        second.machine.rmmod("a")
    second.patch("b", 3)
    second.call("b", "register")
    second.enable("b")
    with refused(errno.EBUSY):
        second.enable("a", False)
    second.machine.write(f"{LIVEPATCH}/b/enabled", "n\n")
    second.enable("a", False)
    assert second.answer() == 1
    second.enable("a")
    second.enable("a", False)
    for name in "ab":
        second.call(name, "unregister")
        second.machine.rmmod(name)
    assert second.log()[:6] == [
        "enabling patch 'a'", "'a': patching...", "'a': patching complete",
        "enabling patch 'b'", "'b': patching...", "'b': patching complete",
    ]  # fmt: skip


def test_a_transition_that_waits_is_reversed_by_sysfs(second: Patches) -> None:
    machine = second.machine
    second.insmod(SAMPLES / "sleeper.c")
    machine.advance(1)
    second.patch("a", 0, "sleeper_nap", "sleeper")
    second.patch("b", 2)
    second.call("a", "register", "enable")
    second.call("b", "register")
    machine.advance(40)
    assert machine.read(f"{LIVEPATCH}/a/transition") == "1\n"
    assert not [line for line in machine.dmesg() if "signaling" in line]  # which was added later
    with refused(errno.EBUSY):
        second.enable("b")
    second.enable("a", False)
    machine.advance(2)
    assert (machine.read(f"{LIVEPATCH}/a/transition"), second.enabled("a")) == ("0\n", [0])
    assert machine.read("sys/module/a/refcnt") == "0\n"
    second.call("a", "unregister")


def test_a_consistency_model_that_gives_up_leaves_the_patch_registered(second: Patches) -> None:
    machine = second.machine
    machine.write("sys/module/livepatch/parameters/consistency", "kpatch")
    second.insmod(SAMPLES / "sleeper.c")
    machine.advance(1)
    second.patch("a", 0, "sleeper_nap", "sleeper")
    second.call("a", "register")
    with refused(errno.EBUSY):
        second.enable("a")
    assert second.enabled("a") == [0]
    assert machine.read("sys/module/a/refcnt") == "0\n"
    assert second.log()[-2:] == ["'a': giving up patching", "'a': unpatching complete"]
    machine.write("sys/module/sleeper/parameters/wake", "1")
    machine.advance(1)
    second.enable("a")
    assert (
        machine.read("machine/consistency")
        .splitlines()[1]
        .startswith("a kpatch patched_set kernel")
    )
    second.enable("a", False)
    second.call("a", "unregister")


def test_the_first_abi_has_one_consistency_model(first: Patches) -> None:
    first.patch("a", 2)
    first.call("a", "register")
    assert first.machine.read("machine/consistency").splitlines()[1] == (
        "a 3.20 function function ftrace stacks - -"
    )
    assert not first.machine.path("sys/module/livepatch").exists()


@pytest.mark.parametrize("which", ["PATCH", "FUNC"])
def test_an_immediate_patch_does_not_wait_and_is_never_unloaded(
    second: Patches, which: str
) -> None:
    machine = second.machine
    second.insmod(SAMPLES / "sleeper.c")
    machine.advance(1)
    second.patch("a", 0, "sleeper_nap", "sleeper", **{which: ".immediate = true"})
    second.call("a", "register", "enable")
    assert (machine.read(f"{LIVEPATCH}/a/transition"), second.enabled("a")) == ("0\n", [1])
    second.enable("a", False)
    assert second.enabled("a") == [0]
    assert machine.read("sys/module/a/refcnt") == "1\n"


def test_a_module_that_cannot_be_patched_is_refused_since_then(second: Patches) -> None:
    second.machine.rmmod("klp_answer")
    second.patch("p", 2, "no_such_function")
    second.call("p", "register")
    with refused(errno.EINVAL):
        second.insmod("klp_answer.c")
    second.call("p", "unregister")
    second.insmod("klp_answer.c")
    assert second.answer() == 1


# -- the other columns of the table ---------------------------------------------------------------

FILES = {
    "latest": {"enabled", "transition", "force", "replace", "stack_order", "vmlinux"},
    "6.1": {"enabled", "transition", "force", "vmlinux"},
    "5.1": {"enabled", "transition", "force", "vmlinux"},
    "4.12": {"enabled", "transition", "vmlinux"},
    "3.20": {"enabled", "vmlinux"},
}


FOR_ALL = """
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 1, 0)
#define klp_enable_patch(patch) (klp_register_patch(patch) ?: klp_enable_patch(patch))
#endif
static int __init patch_init"""


@pytest.mark.parametrize("abi", FILES)
def test_one_source_for_all_kernels(klpfs_mount: Mount, tmp_path: Path, abi: str) -> None:
    machine = klpfs_mount("--abi", abi)
    source = tmp_path / "livepatch-sample.c"
    sample = (SAMPLES / "livepatch-sample.c").read_text()
    source.write_text(sample.replace("static int __init patch_init", FOR_ALL))
    machine.insmod(machine.build(source, abi=abi))
    assert machine.read("proc/cmdline") == PATCHED
    patch = machine.path(f"{LIVEPATCH}/livepatch_sample")
    assert {path.name for path in patch.iterdir()} == FILES[abi]
    function = "cmdline_proc_show" if abi == "3.20" else "cmdline_proc_show,1"
    patched = {"patched"} if abi in ("latest", "6.1") else set()
    assert {path.name for path in patch.joinpath("vmlinux").iterdir()} == {function} | patched
    machine.write(f"{LIVEPATCH}/livepatch_sample/enabled", "0")
    if abi in ("latest", "6.1", "5.1"):
        machine.wait_until_gone(f"{LIVEPATCH}/livepatch_sample")
    if abi != "3.20":  # whose module is never unloaded
        machine.rmmod("livepatch_sample")


def test_what_each_exports() -> None:
    registering = {f"klp_{verb}_patch" for verb in ("register", "unregister", "enable", "disable")}
    shadow = {f"klp_shadow_{verb}" for verb in ("get", "alloc", "get_or_alloc", "free", "free_all")}
    states = {"klp_get_state", "klp_get_prev_state"}
    expected = {
        "3.20": registering,
        "4.12": registering,
        "5.1": shadow | {"klp_enable_patch"},
        "6.1": shadow | states | {"klp_enable_patch"},
        "latest": shadow | states | {"klp_enable_patch"},
        "none": set(),
    }
    assert set(expected) == set(ABIS) == {*abis.NAMES, abis.NONE}
    for abi, names in expected.items():
        image = embedded.load(abi=abi)
        assert {name for name in image.exports if name.startswith("klp_")} == names
        assert {s.name for s in image.symbols if re.match(r"klp_\w+_patch$", s.name)} - {
            "klp_transition_patch"
        } == {name for name in names if name.endswith("_patch")}


@pytest.mark.parametrize(
    ("abi", "member"),
    [
        ("3.20", "FUNC=.old_sympos = 1"), ("3.20", "PATCH=.replace = true"),
        ("4.12", "PATCH=.replace = true"), ("4.12", "OBJ=.callbacks = { }"),
        ("4.12", "OBJ=.relocs = 0"),
    ],
)  # fmt: skip
def test_a_patch_that_is_ahead_of_or_behind_its_api_does_not_compile(
    tmp_path: Path, abi: str, member: str
) -> None:
    where, _, text = member.partition("=")
    defines = {"OBJECT": "NULL", "FUNCTION": '"f"', "VERSION": "0", where: text}
    with pytest.raises(kbuild.CompileError, match="has no member named"):
        kbuild.build([MODULES / "klp_registered.c"], tmp_path, defines=defines, abi=abi)


@pytest.mark.parametrize("abi", [name for name in abis.NAMES if abis.include_directory(name)])
def test_every_header_compiles_alone_and_without_a_warning(abi: str, tmp_path: Path) -> None:
    directory = abis.include_directory(abi)
    assert directory is not None
    for header in directory.rglob("*.h"):
        command = [
            *kbuild.compiler(), *abis.cflags(abi), *kbuild.CFLAGS, "-DMODULE",
            '-DKBUILD_MODNAME="x"', "-Werror", "-fsyntax-only", "-x", "c", "-",
        ]  # fmt: skip
        text = f"#include <{header.relative_to(directory)}>\n"
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.stderr == "", header


def test_the_latest_kernel_has_no_klp_register_patch(tmp_path: Path) -> None:
    with pytest.raises(kbuild.CompileError, match="implicit declaration .*klp_register_patch"):
        kbuild.build([MODULES / "3.20/livepatch-sample.c"], tmp_path, abi="5.1")


def test_a_module_of_another_abi_is_refused(first: Patches, ko: Callable[..., Path]) -> None:
    with refused(errno.ENOEXEC):
        first.machine.insmod(ko("livepatch-sample"))
    assert first.machine.dmesg()[-1] == (
        "livepatch_sample: version magic '6.1.0-klpfs preempt mod_unload ' should be "
        "'3.20.0-klpfs preempt mod_unload '"
    )


def test_the_latest_and_6_1_are_one_kernel(klpfs_mount: Mount, ko: Callable[..., Path]) -> None:
    machine = klpfs_mount("--abi", "6.1")
    machine.insmod(ko("livepatch-sample"))
    assert machine.read("proc/cmdline") == PATCHED


# -- no live patching -----------------------------------------------------------------------------


def test_a_kernel_without_livepatch(klpfs_mount: Mount, ko: Callable[..., Path]) -> None:
    machine = klpfs_mount("--no-livepatch")
    assert not machine.path(LIVEPATCH).exists()
    assert not re.search(r"\bklp_", machine.read("proc/kallsyms"))
    with refused(errno.ENOEXEC):
        machine.insmod(ko("livepatch-sample"))
    assert machine.dmesg()[-1] == (
        "livepatch_sample: module is marked as livepatch module, but livepatch support is disabled"
    )
    machine.insmod(ko("klp_answer"))
    assert machine.read(ANSWER) == "1\n"
    machine.rmmod("klp_answer")
    assert not int(machine.read("proc/sys/kernel/tainted")) & 1 << 15


def test_a_kernel_without_livepatch_lacks_its_symbols(
    klpfs_mount: Mount, ko: Callable[..., Path]
) -> None:
    machine = klpfs_mount("--no-livepatch")
    source = (SAMPLES / "livepatch-sample.c").read_text().replace("MODULE_INFO(livepatch", "//")
    with refused(errno.ENOENT):
        machine.insmod(ko("unmarked", source))
    assert machine.dmesg()[-1] == "unmarked: Unknown symbol klp_enable_patch (err -2)"


def klpfs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "klpfs", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_options(tmp_path: Path) -> None:
    done = klpfs("mount", "--abi", "3.20", "--no-livepatch", str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "Error: --abi and --no-livepatch cannot be used together",
    )
    done = klpfs("mount", "--abi", "2.6", str(tmp_path))
    assert done.returncode == 2 and "'2.6' is not one of" in done.stderr


def test_run_has_a_kernel_of_that_abi() -> None:
    done = klpfs("run", "--abi", "3.20", "--", "sh", "-c", "uname -r; ls /sys/kernel/livepatch")
    assert (done.stdout, done.stderr) == ("3.20.0-klpfs\n", "")
    done = klpfs("run", "--no-livepatch", "--", "ls", "/sys/kernel/livepatch")
    assert done.returncode != 0 and "No such file or directory" in done.stderr
