# SPDX-License-Identifier: GPL-2.0-or-later
"""The session of the README: load a live patch, see the function change, disable the patch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

CMDLINE = re.compile(r"BOOT_IMAGE=\S+ .*\n")
PATCH = "sys/kernel/livepatch/livepatch_sample"
PATCHED = "this has been live patched\n"


@pytest.fixture(params=["ours", "linux"])
def sample(request: pytest.FixtureRequest, ko: Callable[..., Path], tmp_path: Path) -> Path:
    """The sample, in our words and as the kernel has it."""
    if request.param == "ours":
        return ko("livepatch-sample")
    linux: Path = request.getfixturevalue("linux_source")
    source = linux / "samples/livepatch/livepatch-sample.c"
    return ko("livepatch-sample", source.read_text())


def test_a_live_patch_from_loading_to_unloading(klpfs_machine: Machine, sample: Path) -> None:
    machine = klpfs_machine
    original = machine.read("proc/cmdline")
    assert CMDLINE.fullmatch(original)
    assert "nop" in machine.read("machine/disasm/cmdline_proc_show").splitlines()[1]

    machine.insmod(sample)
    assert machine.read("proc/cmdline") == PATCHED
    assert machine.read(f"{PATCH}/enabled") == "1\n"
    assert machine.read(f"{PATCH}/transition") == "0\n"
    assert {entry.name for entry in machine.path(f"{PATCH}/vmlinux").iterdir()} == {
        "cmdline_proc_show,1",
        "patched",
    }
    assert machine.read(f"{PATCH}/vmlinux/patched") == "1\n"
    first = machine.read("machine/disasm/cmdline_proc_show").splitlines()[1]
    assert "call" in first and "klp_ftrace_handler" in first
    assert machine.read("sys/kernel/tracing/enabled_functions").startswith(
        "cmdline_proc_show (1)   I"
    )

    machine.write(f"{PATCH}/enabled", "0\n")
    assert machine.read("proc/cmdline") == original
    machine.wait_until_gone(PATCH)
    assert "nop" in machine.read("machine/disasm/cmdline_proc_show").splitlines()[1]

    machine.rmmod("livepatch_sample")
    assert machine.read("proc/modules") == ""
    assert int(machine.read("proc/sys/kernel/tainted")) & 1 << 15
    assert machine.dmesg()[-7:] == [
        "livepatch_sample: loading out-of-tree module taints kernel.",
        "livepatch_sample: tainting kernel with TAINT_LIVEPATCH",
        "livepatch: enabling patch 'livepatch_sample'",
        "livepatch: 'livepatch_sample': starting patching transition",
        "livepatch: 'livepatch_sample': patching complete",
        "livepatch: 'livepatch_sample': starting unpatching transition",
        "livepatch: 'livepatch_sample': unpatching complete",
    ]


def test_nothing_is_left_behind(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    machine = klpfs_machine

    def cycle() -> str:
        machine.insmod(ko("livepatch-sample"))
        machine.write(f"{PATCH}/enabled", "0")
        machine.wait_until_gone(PATCH)
        machine.rmmod("livepatch_sample")
        return machine.read("machine/allocations")

    first = cycle()
    assert cycle() == first


def test_the_patch_cannot_be_unloaded_while_it_is_enabled(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    klpfs_machine.insmod(ko("livepatch-sample"))
    with pytest.raises(BlockingIOError):
        klpfs_machine.rmmod("livepatch_sample")
    assert klpfs_machine.read("sys/module/livepatch_sample/refcnt") == "1\n"
    assert klpfs_machine.read("sys/module/livepatch_sample/taint") == "OK\n"


def test_loading_with_cat_alone(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    insmod = klpfs_machine.path("machine/insmod")
    insmod.write_bytes(ko("livepatch-sample").read_bytes())
    assert klpfs_machine.read("proc/cmdline") == PATCHED
    with pytest.raises(FileExistsError):
        insmod.write_bytes(ko("livepatch-sample").read_bytes())
