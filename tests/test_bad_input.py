# SPDX-License-Identifier: GPL-2.0-or-later
"""Invalid input: the kernel's errno, its line in the log, and no leaks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

MODULE = """
#include <linux/module.h>
{body}
MODULE_LICENSE("{licence}");
"""
PATCH = """
#include <linux/livepatch.h>
#include <linux/module.h>
static int replacement(void) {{ return 0; }}
static struct klp_func funcs[] = {{ {{ .old_name = "{name}", .new_func = replacement{more} }}, {{ }} }};
static struct klp_object objs[] = {{ {{ .funcs = funcs }}, {{ }} }};
static struct klp_patch patch = {{ .mod = THIS_MODULE, .objs = objs }};
static int __init start(void) {{ return klp_enable_patch(&patch); }}
static void __exit stop(void) {{ }}
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"""


@pytest.fixture
def machine(klpfs_machine: Machine) -> Iterator[Machine]:
    """Return a machine whose state must be the same after the test."""
    before = state(klpfs_machine)
    yield klpfs_machine
    assert state(klpfs_machine) == before


def state(machine: Machine) -> tuple[str, ...]:
    files = ("proc/modules", "proc/kallsyms", "machine/allocations", "proc/cmdline")
    names = sorted(path.name for path in machine.path("sys/module").iterdir())
    return (*(machine.read(name) for name in files), *names)


@contextmanager
def fails(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def with_modinfo(ko: Path, old: bytes, new: bytes) -> bytes:
    data = ko.read_bytes()
    assert data.count(old) == 1 and len(old) == len(new)
    return data.replace(old, new)


def module(body: str, licence: str = "GPL") -> str:
    return MODULE.format(body=body, licence=licence)


def test_files_that_are_not_modules(machine: Machine, ko: Callable[..., Path]) -> None:
    good = ko("livepatch-sample").read_bytes()
    for data, line in [
        (b"#!/bin/sh\necho this is a script, not a module; it is long enough to have a header\n",
         "Invalid ELF header magic: != \x7fELF"),
        (b"\x7fELF", "Invalid ELF header len 4"),
        (good[: len(good) // 2], "Invalid ELF section header overflow"),
        (good[:16] + b"\x02" + good[17:], "Invalid ELF header type: 2 != 1"),
        (good[:18] + b"\xb7" + good[19:], "Invalid architecture in ELF header: 183"),
    ]:  # fmt: skip
        with fails(errno.ENOEXEC):
            machine.insmod(data)
        assert machine.dmesg()[-1] == line


def test_a_module_for_another_kernel(machine: Machine, ko: Callable[..., Path]) -> None:
    other = with_modinfo(ko("livepatch-sample"), b"6.1.0-klpfs", b"5.9.0-klpfs")
    with fails(errno.ENOEXEC):
        machine.insmod(other)
    assert machine.dmesg()[-1] == (
        "livepatch_sample: version magic '5.9.0-klpfs preempt mod_unload ' should be "
        "'6.1.0-klpfs preempt mod_unload '"
    )


def test_a_module_for_another_kernel_can_be_forced(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    other = with_modinfo(ko("livepatch-sample"), b"6.1.0-klpfs", b"5.9.0-klpfs")
    klpfs_machine.insmod(other, force=True)
    assert "livepatch_sample: bad vermagic: kernel tainted." in klpfs_machine.dmesg()
    assert klpfs_machine.read("sys/module/livepatch_sample/taint") == "FOK\n"


def test_every_unknown_symbol_is_named(machine: Machine, ko: Callable[..., Path]) -> None:
    text = module("int one(void), two(void);\nint init_module(void) { return one() + two(); }")
    with fails(errno.ENOENT):
        machine.insmod(ko("unknown", text))
    assert machine.dmesg()[-2:] == [
        "unknown: Unknown symbol one (err -2)",
        "unknown: Unknown symbol two (err -2)",
    ] or machine.dmesg()[-2:] == [
        "unknown: Unknown symbol two (err -2)",
        "unknown: Unknown symbol one (err -2)",
    ]


def test_gpl_symbols_are_for_gpl_modules(machine: Machine, ko: Callable[..., Path]) -> None:
    text = module(
        "extern int klp_enable_patch(void *);\nint init_module(void) { return klp_enable_patch(0); }",
        "Proprietary",
    )
    with fails(errno.ENOENT):
        machine.insmod(ko("closed", text))
    assert machine.dmesg()[-3:] == [
        "closed: module license 'Proprietary' taints kernel.",
        "Disabling lock debugging due to kernel taint",
        "closed: Unknown symbol klp_enable_patch (err -2)",
    ]


PARAMETERS = module("""
static int number = 7;
module_param(number, int, 0644);
static char *word = "none";
module_param(word, charp, 0444);
static bool flag;
module_param(flag, bool, 0644);
int init_module(void) { return 0; }
void cleanup_module(void) { }
""")


def test_parameters(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    machine = klpfs_machine
    machine.insmod(ko("params", PARAMETERS), "number=0x10", "word=two words", "unheard=1")
    directory = "sys/module/params/parameters"
    assert machine.read(f"{directory}/number") == "16\n"
    assert machine.read(f"{directory}/word") == "two words\n"
    assert machine.read(f"{directory}/flag") == "N\n"
    assert machine.dmesg()[-1] == "params: unknown parameter 'unheard' ignored"
    machine.write(f"{directory}/flag", "1\n")
    assert machine.read(f"{directory}/flag") == "Y\n"
    with fails(errno.EINVAL):
        machine.write(f"{directory}/number", "many\n")
    with fails(errno.EACCES):
        machine.write(f"{directory}/word", "other\n")
    machine.rmmod("params")


def test_parameters_that_every_module_has(machine: Machine, ko: Callable[..., Path]) -> None:
    control = "sys/kernel/debug/dynamic_debug/control"
    words = ("params.dyndbg=+p", "livepatch.dyndbg=+p", "async_probe", "dyndbg=wrong")
    machine.insmod(ko("params", PARAMETERS), *words)
    assert machine.dmesg()[-2:] == [
        "dyndbg: bad flag-op w, at start of wrong",
        "dyndbg: flags parse failed",
    ]
    lines = machine.read(control).splitlines()[1:]
    assert lines and all(" =p " in line for line in lines)  # livepatch owns all sites there
    machine.rmmod("params")


def test_a_name_with_a_slash_in_it(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    machine = klpfs_machine
    sample = ko("livepatch-sample").read_bytes()
    machine.insmod(sample.replace(b"livepatch_sample", b"livepatch/sample"))
    assert machine.read("proc/modules").startswith("livepatch/sample ")
    assert machine.read("sys/module/livepatch!sample/initstate") == "live\n"
    machine.write("sys/kernel/livepatch/livepatch!sample/enabled", "0")
    machine.wait_until_gone("sys/kernel/livepatch/livepatch!sample")
    machine.write("machine/rmmod", "livepatch/sample")  # rmmod(8) would take the name for a path


def test_a_user_of_a_module_with_a_slash_in_its_name(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    machine = klpfs_machine
    machine.insmod(ko("below", module(
        "int below(void);\nint below(void) { return 3; }\nEXPORT_SYMBOL(below);\n"
        "int init_module(void) { return 0; }\nvoid cleanup_module(void) { }"
    )))  # fmt: skip
    above = ko("above_it", module(
        "int below(void);\nint init_module(void) { return below() - 3; }\n"
        "void cleanup_module(void) { }"
    )).read_bytes()  # fmt: skip
    machine.insmod(above.replace(b"above_it\0", b"../../up\0"))
    assert os.listdir(machine.path("sys/module/below/holders")) == ["..!..!up"]
    machine.write("machine/rmmod", "../../up")
    assert os.listdir(machine.path("sys/module/below/holders")) == []
    machine.rmmod("below")


def test_what_sysfs_has_of_a_module_s_sections(machine: Machine, ko: Callable[..., Path]) -> None:
    machine.insmod(ko("params", PARAMETERS))
    text = machine.path("sys/module/params/sections/.text")
    assert text.stat().st_size == len(text.read_bytes()) == 19
    note = machine.path("sys/module/params/notes/.note.gnu.build-id")
    assert note.stat().st_size == len(note.read_bytes()) == 36
    assert note.read_bytes()[12:16] == b"GNU\0"
    machine.rmmod("params")


def test_an_invalid_parameter(machine: Machine, ko: Callable[..., Path]) -> None:
    with fails(errno.EINVAL):
        machine.insmod(ko("params", PARAMETERS), "number=many")
    assert machine.dmesg()[-1] == "params: `many' invalid for parameter `number'"


def test_loading_twice_and_unloading_what_is_not_there(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    machine = klpfs_machine
    machine.insmod(ko("livepatch-sample"))
    with fails(errno.EEXIST):
        machine.insmod(ko("livepatch-sample"))
    with fails(errno.EWOULDBLOCK):
        machine.rmmod("livepatch_sample")
    with fails(errno.ENOENT):
        machine.rmmod("nothing_of_that_name")
    assert machine.read("proc/cmdline") == "this has been live patched\n"


def test_unloading_what_another_module_uses(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    machine = klpfs_machine
    machine.insmod(ko("below", module(
        "int below(void);\nint below(void) { return 3; }\nEXPORT_SYMBOL(below);\n"
        "int init_module(void) { return 0; }\nvoid cleanup_module(void) { }"
    )))  # fmt: skip
    machine.insmod(ko("above", module(
        "int below(void);\nint init_module(void) { return below() - 3; }\n"
        "void cleanup_module(void) { }"
    )))  # fmt: skip
    assert os.readlink(machine.path("sys/module/below/holders/above")) == "../../above"
    with fails(errno.EWOULDBLOCK):
        machine.rmmod("below")
    machine.rmmod("above")
    machine.rmmod("below")
    assert machine.read("proc/modules") == ""


def test_an_init_that_fails(machine: Machine, ko: Callable[..., Path]) -> None:
    with fails(errno.ENODEV):
        machine.insmod(ko("refuses", module("int init_module(void) { return -19; }")))


@pytest.mark.parametrize(
    ("patch", "number", "line"),
    [
        (
            {"name": "no_such_function", "more": ""},
            errno.EINVAL,
            "livepatch: symbol 'no_such_function' not found in symbol table",
        ),
        (
            {"name": "cmdline_proc_show", "more": ", .old_sympos = 2"},
            errno.EINVAL,
            "livepatch: symbol position 2 for symbol 'cmdline_proc_show' in object 'vmlinux' "
            "not found",
        ),
        (
            {"name": "ftrace_stub", "more": ""},
            errno.EINVAL,
            "livepatch: failed to find location for function 'ftrace_stub'",
        ),
    ],
)
def test_invalid_patches(
    machine: Machine, ko: Callable[..., Path], patch: dict[str, str], number: int, line: str
) -> None:
    with fails(number):
        machine.insmod(ko("wrong", PATCH.format(**patch)))
    assert line in machine.dmesg()


def test_a_patch_that_does_not_say_so(machine: Machine, ko: Callable[..., Path]) -> None:
    text = PATCH.format(name="cmdline_proc_show", more="").replace("MODULE_INFO(livepatch", "//")
    with fails(errno.EINVAL):
        machine.insmod(ko("secret", text))
    assert machine.dmesg()[-1] == "livepatch: module secret is not marked as a livepatch module"


@pytest.mark.parametrize("text", ["2", "abc", "1\n", "0" * 5000 + "x", "-1", " 0"])
def test_invalid_values_for_enabled(
    klpfs_machine: Machine, ko: Callable[..., Path], text: str
) -> None:
    klpfs_machine.insmod(ko("livepatch-sample"))
    enabled = "sys/kernel/livepatch/livepatch_sample/enabled"
    if text.startswith("0"):  # sysfs reads a page of it, and kstrtobool its first letter
        klpfs_machine.write(enabled, text)
        return
    with fails(errno.EINVAL):
        klpfs_machine.write(enabled, text)
    assert klpfs_machine.read(enabled) == "1\n"
    assert klpfs_machine.read("proc/cmdline") == "this has been live patched\n"


def test_an_empty_write_to_enabled(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    klpfs_machine.insmod(ko("livepatch-sample"))
    enabled = klpfs_machine.path("sys/kernel/livepatch/livepatch_sample/enabled")
    enabled.write_bytes(b"")
    assert enabled.read_text() == "1\n"


def test_the_tree_belongs_to_the_kernel(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    machine = klpfs_machine
    machine.insmod(ko("livepatch-sample"))
    patch = machine.path("sys/kernel/livepatch/livepatch_sample")
    attempts: list[tuple[int, Callable[[], object]]] = [
        (errno.EACCES, lambda: (patch / "transition").write_text("1")),
        (errno.EPERM, lambda: (patch / "more").mkdir()),
        (errno.EPERM, lambda: (patch / "enabled").unlink()),
        (errno.EPERM, lambda: (patch / "enabled").rename(patch / "disabled")),
        (errno.EPERM, lambda: os.link(patch / "enabled", patch / "other")),
        (errno.EACCES, lambda: (patch / "new").write_text("")),
        (errno.EPERM, lambda: patch.rmdir()),
    ]
    for number, attempt in attempts:
        with fails(number):
            attempt()
    assert machine.read("sys/kernel/livepatch/livepatch_sample/enabled") == "1\n"


def test_an_oops_in_init(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    machine = klpfs_machine
    oops = module(
        "static noinline void break_it(void) { *(volatile int *)8 = 1; }\n"
        "int init_module(void) { break_it(); return 0; }"
    )
    with fails(errno.EFAULT):
        machine.insmod(ko("oopses", oops))
    log = machine.dmesg()
    assert "BUG: kernel NULL pointer dereference, address: 0000000000000008" in log
    assert "#PF: supervisor write access in kernel mode" in log
    assert "Oops: 0002 [#1] PREEMPT" in log
    assert any(line.startswith("RIP: 0010:break_it+0x") and "[oopses]" in line for line in log)
    assert any(line.startswith("RAX: ") for line in log)
    assert any("init_module+0x" in line for line in log[log.index("Call Trace:") :])
    assert machine.read("sys/module/oopses/initstate") == "coming\n"
    assert int(machine.read("proc/sys/kernel/tainted")) & 1 << 7
    with fails(errno.EBUSY):
        machine.rmmod("oopses")
    # The rest of the machine continues to work.
    machine.insmod(ko("livepatch-sample"))
    assert machine.read("proc/cmdline") == "this has been live patched\n"
