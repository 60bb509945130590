# SPDX-License-Identifier: GPL-2.0-or-later
"""A mount with a kernel of Debian, whose own code answers and refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from klpfs.checking.check import check
from klpfs.checking.diagnosis import reasons
from klpfs.machine.elf import ElfError, Modinfo, ModuleImage, Section
from klpfs.machine.image import Image, distribution
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.module.percpu import ModulePerCpu
from klpfs.pytest_plugin import Machine

SCRIPTS = Path(__file__).parent.parent / "scripts"
COMMAND_LINE = "root=/dev/vda1 ro quiet console=ttyS0"
SECONDS = 120


@pytest.fixture(scope="module")
def vmlinuz() -> Path:
    """Return Debian's newest cloud kernel. Skip the test if it is not available."""
    command = [str(SCRIPTS / "get-debian-kernel"), "cloud-amd64"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip("getting a kernel of Debian's takes too long")
    if done.returncode != 0:
        pytest.skip(f"no kernel of Debian's: {done.stderr.strip()}")
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def release(vmlinuz: Path) -> str:
    return vmlinuz.name.removeprefix("vmlinuz-")


@pytest.fixture(scope="module")
def image(vmlinuz: Path) -> Image:
    return distribution.load(vmlinuz)


@pytest.fixture(scope="module")
def machine(vmlinuz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    options = ["--kernel", str(vmlinuz), "--append", COMMAND_LINE, "--virtual-time"]
    machine = Machine(tmp_path_factory.mktemp("stock"), *options)
    yield machine
    machine.umount()


@pytest.fixture(scope="module")
def modules(vmlinuz: Path, release: str) -> Path:
    """Return modules built with Debian's headers. Skip the test if they were not built."""
    directory = vmlinuz.parent.parent.parent / f"livepatch-modules-{release}"
    if not directory.is_dir():
        pytest.skip("no modules: scripts/build-debian-modules --kernel linux-image-cloud-amd64")
    return directory


def klpfs(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "klpfs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


# -- files of /proc, by the kernel's own code -----------------------------------------------------


def test_version(machine: Machine, release: str) -> None:
    version = machine.read("proc/version")
    assert version.startswith(f"Linux version {release} (debian-kernel@lists.debian.org) (gcc")
    assert machine.dmesg()[0] == version.rstrip("\n")


def test_cmdline(machine: Machine) -> None:
    assert machine.read("proc/cmdline") == f"{COMMAND_LINE}\n"


def test_loadavg(machine: Machine) -> None:
    words = machine.read("proc/loadavg").split()
    assert words[:3] == ["0.00", "0.00", "0.00"]
    assert len(words) == 5 and "/" in words[3]


def test_filesystems_and_devices(machine: Machine) -> None:
    for name in ("proc/filesystems", "proc/devices"):
        assert os.stat(machine.path(name)).st_mode & 0o777 == 0o444
    assert machine.read("proc/devices").startswith("Character devices:\n")
    assert all(
        line.startswith(("nodev\t", "\t")) for line in machine.read("proc/filesystems").splitlines()
    )


def test_meminfo(machine: Machine) -> None:
    lines = machine.read("proc/meminfo").splitlines()
    assert lines[0].startswith("MemTotal:") and lines[0].endswith(" kB")
    assert int(lines[0].split()[1]) > 0
    assert any(
        line.startswith("HugePages_Total:") or line.startswith("DirectMap4k") for line in lines
    )


def test_functions_that_can_be_traced(machine: Machine, image: Image) -> None:
    functions = machine.read("sys/kernel/tracing/available_filter_functions").splitlines()
    assert len(functions) > 30_000
    assert "cmdline_proc_show" in functions
    assert "klp_ftrace_handler" not in functions


def test_uname(machine: Machine, release: str) -> None:
    done = klpfs("run", "-m", machine.mountpoint, "--", "uname", "-r")
    if "klpfs run needs" in done.stderr:  # a file of the host
        pytest.skip(done.stderr.strip())
    assert done.stdout == f"{release}\n"


# -- modules --------------------------------------------------------------------------------------


def test_a_module_for_another_kernel(
    machine: Machine, ko: Callable[..., Path], image: Image
) -> None:
    machine.clear_log()
    with pytest.raises(OSError) as failed:
        machine.insmod(ko("livepatch-sample"))
    assert failed.value.errno == errno.ENOEXEC
    line = machine.dmesg()[-1]
    assert line.startswith("livepatch_sample: version magic '6.1.0-klpfs")
    assert line.endswith(f"should be '{image.vermagic}'")


def test_a_module_that_debian_s_headers_made(machine: Machine, modules: Path) -> None:
    machine.clear_log()
    machine.insmod(modules / "livepatch-sample.ko")
    assert machine.read("proc/cmdline") == "this has been live patched\n"
    enabled = machine.path("sys/kernel/livepatch/livepatch_sample/enabled")
    assert enabled.read_text() == "1\n"
    assert "cmdline_proc_show (1)" in machine.read("sys/kernel/tracing/enabled_functions")
    enabled.write_text("0")
    machine.advance(1)
    machine.wait_until_gone("sys/kernel/livepatch/livepatch_sample")
    assert machine.read("proc/cmdline") == f"{COMMAND_LINE}\n"
    machine.rmmod("livepatch_sample")
    assert machine.dmesg() == [
        "livepatch_sample: loading out-of-tree module taints kernel.",
        "livepatch_sample: tainting kernel with TAINT_LIVEPATCH",
        "livepatch_sample: module verification failed: signature and/or required key missing - "
        "tainting kernel",
        "livepatch: enabling patch 'livepatch_sample'",
        "livepatch: 'livepatch_sample': starting patching transition",
        "livepatch: 'livepatch_sample': patching complete",
        "livepatch: 'livepatch_sample': starting unpatching transition",
        "livepatch: 'livepatch_sample': unpatching complete",
    ]


# -- what was never booted ------------------------------------------------------------------------


def test_a_function_of_what_was_never_booted(image: Image, modules: Path) -> None:
    """The page allocator of an unbooted kernel has no pages, so the answer is a fault."""
    patch = (modules / "livepatch-sample.ko").read_bytes()
    calls = ["__alloc_pages(0xcc0, 0, 0, 0)", 'strlen("four")']
    report = check(image, patch, calls=calls)
    failed, worked = report.calls
    assert failed.before.startswith("BUG: unable to handle page fault for address: ")
    assert "__alloc_pages reads 0x" in failed.before
    assert failed.before.endswith(
        "this kernel was not booted, so data that the function uses may be missing"
    )
    assert worked.before == "4 (0x4)"


def test_static_keys(image: Image) -> None:
    """The kernel's own code enables a static key, which changes its branches."""

    async def run() -> None:
        kernel = Kernel(image, VirtualClock())
        async with trio.open_nursery() as nursery:
            await kernel.boot(nursery)
            symbols, space = kernel.symbols.lookup, kernel.computer.space
            key, branches = symbols("context_tracking_key"), {}
            start, stop = symbols("__start___jump_table"), symbols("__stop___jump_table")
            assert key and start and stop
            for entry in range(start, stop, 16):
                if (entry + 8 + (space.read_u64(entry + 8) & ~3)) % (1 << 64) == key:
                    site = entry + space.read_s32(entry)
                    branches[site] = kernel.text.read(site)
            assert branches
            call = kernel.sched.idle.call
            enable, disable = symbols("static_key_enable"), symbols("static_key_disable")
            assert enable and disable
            await call(enable, key)
            changed = [kernel.text.read(site) for site in branches]
            assert all(a != b for a, b in zip(changed, branches.values(), strict=True))
            await call(disable, key)
            assert [kernel.text.read(site) for site in branches] == list(branches.values())
            nursery.cancel_scope.cancel()
        kernel.close()

    trio.run(run)


def test_files_that_the_kernel_marks_as_permanent(image: Image) -> None:
    """Its own pde_make_permanent() sets the flag, in its own struct proc_dir_entry."""

    async def run() -> None:
        kernel = Kernel(image, VirtualClock())
        async with trio.open_nursery() as nursery:
            await kernel.boot(nursery)
            entries = kernel.proc.root.children
            for name in ("version", "uptime", "meminfo", "loadavg", "cmdline", "filesystems"):
                await kernel.proc._remove(entries[name])
            assert {"version", "uptime", "meminfo", "loadavg"} <= entries.keys()
            assert not {"cmdline", "filesystems"} & entries.keys()
            nursery.cancel_scope.cancel()
        kernel.close()

    trio.run(run)


def test_per_cpu_variables_of_modules(image: Image) -> None:
    """They are allocated behind those of the kernel, until there is no more room."""
    kernel = Kernel(image, VirtualClock())
    try:
        computer, percpu = kernel.computer, ModulePerCpu(kernel.base)
        assert percpu.smp
        small = module_with_percpu(b"\x2a\0\0\0", 4)
        base, size = percpu.alloc(small)
        assert (base, size) == (len(image.per_cpu), 4)
        assert computer.space.read_u32(base + computer.per_cpu_offset) == 42
        with pytest.raises(
            ElfError, match="m: Could not allocate 8192 bytes percpu data"
        ) as failed:
            percpu.alloc(module_with_percpu(b"", 8192))
        assert failed.value.errno == errno.ENOMEM
        percpu.free(base, size)
        assert percpu.alloc(module_with_percpu(b"", 8192)) == (base, 8192)
    finally:
        kernel.close()


def module_with_percpu(data: bytes, size: int) -> ModuleImage:
    nothing = Section(0, "", 0, 0, 0, 0, 0, 0, 0, memoryview(b""))
    section = replace(nothing, index=1, name=".data..percpu", size=size, data=memoryview(data))
    return ModuleImage("m", (nothing, section), Modinfo(), 0, 0, 0, percpu=1)


def test_what_there_is_of_a_name(image: Image) -> None:
    kernel = Kernel(image, VirtualClock())
    try:
        lines = [
            "livepatch: unresolvable ambiguity for symbol 'cpu_show' in object '(null)'",
            "livepatch: symbol 'do_one_initcall_of_mine' not found in symbol table",
        ]
        several = max((len(kernel.symbols.all_named(n)), n) for n in ("cpu_show", "show", "t_show"))
        lines[0] = lines[0].replace("cpu_show", several[1])
        ambiguous, missing = reasons(kernel, lines)
        assert ambiguous.subject == f"vmlinux:{several[1]}"
        assert ambiguous.detail.startswith(
            f"{several[0]} symbols have this name; set sympos to choose one: 1 at"
        )
        assert missing.detail.startswith("no such symbol in vmlinux")
    finally:
        kernel.close()


# -- what is no kernel ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing", "text", "empty", "directory"])
def test_files_that_are_not_kernels(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").write_text("this is no kernel\n" * 1000)
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "mount").mkdir()
    done = klpfs("mount", "--kernel", tmp_path / name, tmp_path / "mount")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {tmp_path / name} cannot be ")


def test_its_api_is_its_own(vmlinuz: Path, tmp_path: Path) -> None:
    done = klpfs("mount", "--kernel", vmlinuz, "--abi", "3.20", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"Error: --abi and --no-livepatch are for the embedded kernel: {vmlinuz} has its own live "
        "patching API"
    )
