# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of a mount: its files and their modes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from processes import errno_of

from klpfs.pytest_plugin import Machine

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

TREE = """
dr-xr-xr-x sys
drwxr-xr-x sys/kernel
drwxr-xr-x sys/kernel/livepatch
drwxr-xr-x sys/kernel/livepatch/livepatch_sample
-rw-r--r-- sys/kernel/livepatch/livepatch_sample/enabled
-r--r--r-- sys/kernel/livepatch/livepatch_sample/transition
--w------- sys/kernel/livepatch/livepatch_sample/force
drwxr-xr-x sys/kernel/livepatch/livepatch_sample/vmlinux
-r--r--r-- sys/kernel/livepatch/livepatch_sample/vmlinux/patched
drwxr-xr-x sys/kernel/livepatch/livepatch_sample/vmlinux/cmdline_proc_show,1
drwx------ sys/kernel/debug
drwxr-xr-x sys/kernel/debug/dynamic_debug
-rw-r--r-- sys/kernel/debug/dynamic_debug/control
drwx------ sys/kernel/tracing
-r--r----- sys/kernel/tracing/available_filter_functions
-r--r----- sys/kernel/tracing/available_tracers
-rw-r----- sys/kernel/tracing/current_tracer
-r--r----- sys/kernel/tracing/enabled_functions
-rw-r----- sys/kernel/tracing/set_ftrace_filter
-rw-r----- sys/kernel/tracing/set_ftrace_notrace
-rw-r----- sys/kernel/tracing/trace
-rw-r----- sys/kernel/tracing/tracing_on
drwxr-xr-x sys/module
drwxr-xr-x sys/module/livepatch_sample
-r--r--r-- sys/module/livepatch_sample/coresize
-r--r--r-- sys/module/livepatch_sample/initsize
-r--r--r-- sys/module/livepatch_sample/initstate
-r--r--r-- sys/module/livepatch_sample/refcnt
-r--r--r-- sys/module/livepatch_sample/taint
--w------- sys/module/livepatch_sample/uevent
drwxr-xr-x sys/module/livepatch_sample/holders
drwxr-xr-x sys/module/livepatch_sample/sections
-r-------- sys/module/livepatch_sample/sections/.text
drwxr-xr-x sys/module/conform_base/holders
lrwxrwxrwx sys/module/conform_base/holders/conform
drwxr-xr-x sys/module/conform/parameters
-r--r--r-- sys/module/conform/parameters/constant
-rw-r--r-- sys/module/conform/parameters/flag
--w------- sys/module/conform/parameters/number
dr-xr-xr-x proc
-r--r--r-- proc/cmdline
-r--r--r-- proc/meminfo
-r--r--r-- proc/version
-r--r--r-- proc/modules
-r--r--r-- proc/kallsyms
dr-xr-xr-x proc/sys
-rw-r--r-- proc/sys/kernel/tainted
-rw-r--r-- proc/sys/kernel/ftrace_enabled
-rw-r--r-- proc/KTHREAD/comm
-r-------- proc/KTHREAD/stack
-r-------- proc/KTHREAD/patch_state
-r--r--r-- proc/KTHREAD/wchan
-r--r--r-- proc/KTHREAD/status
drwxr-xr-x dev
-rw-r--r-- dev/kmsg
drwxr-xr-x machine
--w------- machine/insmod
--w------- machine/rmmod
-rw-r--r-- machine/clock
-rw-r--r-- machine/syslog
-rw------- machine/syscall
-r-------- machine/registers
-r-------- machine/allocations
-r-------- machine/memory
dr-xr-xr-x machine/disasm
-r--r--r-- machine/disasm/cmdline_proc_show
"""
ROWS = [(line.split()[1], line.split()[0]) for line in TREE.strip().splitlines()]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, ko: Callable[..., Path]) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("tree"), "--virtual-time")
    try:
        for name in ("livepatch-sample", "conform_base", "conform"):
            machine.insmod(ko(name))
        yield machine
    finally:
        machine.umount()


def walk(top: Path) -> Iterator[Path]:
    """Yield all files but those generated on demand: functions, and the host's /proc."""
    for entry in os.scandir(top):
        path = Path(entry.path)
        yield path
        if entry.is_dir(follow_symlinks=False) and entry.name not in ("disasm", "procview"):
            yield from walk(path)


@pytest.mark.parametrize(("name", "mode"), ROWS, ids=[name for name, _ in ROWS])
def test_mode(machine: Machine, name: str, mode: str) -> None:
    if "KTHREAD" in name:
        name = name.replace("KTHREAD", str(machine.pid_of("kthreadd")))
    assert stat.filemode(os.lstat(machine.path(name)).st_mode) == mode


def test_everything_that_may_be_read_can_be(machine: Machine) -> None:
    """root reads all files. Text ends with a newline."""
    no_text = ("wchan", ".note.gnu.build-id")
    for path in walk(machine.mountpoint):
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or path.name in ("kmsg", "memory", "syscall"):
            continue
        if not found.st_mode & 0o444:
            in_sysfs = machine.path("sys") in path.parents
            refused = {"EACCES"} if in_sysfs else {"EACCES", "EINVAL"}
            assert errno_of(path.read_bytes) in refused, path
        else:
            text = path.read_bytes()
            assert not text or text.endswith(b"\n") or path.name in no_text, path


def test_sizes(machine: Machine) -> None:
    """The size is a page for files of sysfs, 0 for files of procfs."""
    sizes = {name: os.lstat(machine.path(name)).st_size for name, mode in ROWS if mode[0] == "-"
             and "KTHREAD" not in name and "sections" not in name}  # fmt: skip
    for name, size in sizes.items():
        if name.startswith("proc/") or "/debug/" in name or "/tracing/" in name:
            assert size == 0, name
        elif name.startswith("sys/"):
            assert size == 4096, name
    assert sizes["machine/memory"] == 256 << 20
    assert sizes["dev/kmsg"] == sizes["machine/syslog"] > 0


def test_inode_numbers_are_each_ones_own(machine: Machine) -> None:
    numbers = [os.lstat(path).st_ino for path in walk(machine.mountpoint)]
    assert len(numbers) == len(set(numbers))
    assert numbers == [os.lstat(path).st_ino for path in walk(machine.mountpoint)]


def test_links_lead_somewhere_in_the_mount(machine: Machine) -> None:
    link = machine.path("sys/module/conform_base/holders/conform")
    assert os.readlink(link) == "../../conform"
    assert link.resolve() == machine.path("sys/module/conform").resolve()


def test_files_belong_to_the_user_of_klpfs_mount(machine: Machine) -> None:
    assert {
        (os.lstat(path).st_uid, os.lstat(path).st_gid) for path in walk(machine.mountpoint)
    } == {(os.getuid(), os.getgid())}


def test_a_uevent_is_checked_and_nothing_more(machine: Machine) -> None:
    """Documentation/ABI/testing/sysfs-uevent."""
    uevent = machine.path("sys/module/conform/uevent")
    uuid = "fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed"
    for good in ("add", "change\n", f"add {uuid}", f"add {uuid} A=1 B=abc\n"):
        uevent.write_text(good)
    machine.clear_log()
    for bad in ("", "nonsense", "addx", "add\n\n", "add 1", f"add {uuid} A", f"add {uuid} A=-"):
        if bad:
            assert errno_of(partial(uevent.write_text, bad)) == "EINVAL", bad
    assert machine.dmesg()[0] == "synth uevent: /module/conform: unknown uevent action string"
    assert machine.dmesg()[-1] == "synth uevent: /module/conform: incorrect uevent action arguments"


def test_a_module_takes_its_directory_along(machine: Machine) -> None:
    before = set(walk(machine.mountpoint))
    machine.rmmod("conform")
    gone = {
        str(path.relative_to(machine.mountpoint)) for path in before - set(walk(machine.mountpoint))
    }
    assert {"sys/module/conform", "sys/module/conform_base/holders/conform"} <= gone
    assert all("conform" in name for name in gone)
