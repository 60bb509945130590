# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs example``, and the samples that it writes: each does on a mounted machine what its text says."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from klpfs.cli import main
from klpfs.cli.example import EXAMPLES, SAMPLES
from klpfs.modules import kbuild
from klpfs.pytest_plugin import Machine

LIVEPATCH = "sys/kernel/livepatch"
Insmod = Callable[..., None]

needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")


def klpfs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


# -- the command ----------------------------------------------------------------------------------


def test_it_lists_the_examples() -> None:
    done = klpfs("example")
    assert done.exit_code == 0
    lines = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    assert lines == [[name, example.description] for name, example in EXAMPLES.items()]


def test_every_sample_belongs_to_one_example() -> None:
    files = [file for example in EXAMPLES.values() for file in example.files]
    assert sorted(files) == sorted(path.name for path in SAMPLES.iterdir())


def test_it_writes_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = klpfs("example", "sleeper")
    assert (done.exit_code, done.stdout) == (0, "sleeper.c\nsleeper-patch.c\n")
    assert (tmp_path / "sleeper.c").read_text() == (SAMPLES / "sleeper.c").read_text()


def test_it_creates_the_directory(tmp_path: Path) -> None:
    done = klpfs("example", "livepatch-sample", tmp_path / "a/b")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/a/b/livepatch-sample.c\n")


def test_it_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "sleeper-patch.c").write_text("mine")
    done = klpfs("example", "sleeper", tmp_path)
    assert done.exit_code == 1
    assert (
        done.stderr
        == f"Error: {tmp_path}/sleeper-patch.c already exists; use --force to overwrite\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["sleeper-patch.c"]
    assert (tmp_path / "sleeper-patch.c").read_text() == "mine"

    assert klpfs("example", "--force", "sleeper", tmp_path).exit_code == 0
    assert (tmp_path / "sleeper-patch.c").read_text() != "mine"


def test_an_unknown_name(tmp_path: Path) -> None:
    done = klpfs("example", "sleepers", tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "Error: no example is called 'sleepers'; there are livepatch-sample,"
    )


def test_a_directory_that_cannot_be_made() -> None:
    done = klpfs("example", "sleeper", "/proc/nothing")
    assert done.exit_code == 1
    assert done.stderr == "Error: /proc/nothing: No such file or directory\n"


# -- the samples ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``built("sleeper")``: sleeper.ko of the sample. All are compiled without a warning."""
    directory = tmp_path_factory.mktemp("samples")
    for name in EXAMPLES:
        assert klpfs("example", name, directory).exit_code == 0
    warnings: list[str] = []
    kbuild.build(sorted(directory.glob("*.c")), on_message=warnings.append)
    assert warnings == []
    return lambda name: directory / f"{name}.ko"


@pytest.fixture
def machine(klpfs_machine: Machine) -> Iterator[Machine]:
    """A machine in virtual time, on which no module remains at the end."""
    yield klpfs_machine
    assert klpfs_machine.read("proc/modules") == ""
    assert not any("WARNING" in line or "BUG" in line for line in klpfs_machine.dmesg())


@pytest.fixture
def insmod(machine: Machine, built: Callable[[str], Path]) -> Insmod:
    """``insmod("sleeper")``: load the sample of that name."""
    return lambda name, *parameters: machine.insmod(built(name), *parameters)


def rmmod(machine: Machine, name: str) -> None:
    """Unload a module whose exit function waits for a sleeping thread, so that time must pass."""
    with ThreadPoolExecutor() as pool:
        gone = pool.submit(machine.rmmod, name)
        while not gone.done():
            machine.advance(0.1)
        gone.result()


def disable(machine: Machine, patch: str) -> None:
    """Disable a patch and unload its module."""
    machine.write(f"{LIVEPATCH}/{patch}/enabled", "0")
    machine.advance(3)
    machine.wait_until_gone(f"{LIVEPATCH}/{patch}")
    machine.rmmod(patch)


@needs_fuse
def test_livepatch_sample(machine: Machine, insmod: Insmod) -> None:
    original = machine.read("proc/cmdline")
    insmod("livepatch-sample")
    assert machine.read("proc/cmdline") == "this has been live patched\n"
    disable(machine, "livepatch_sample")
    assert machine.read("proc/cmdline") == original


@needs_fuse
class TestSleeper:
    @pytest.fixture(autouse=True)
    def stalled(self, machine: Machine, insmod: Insmod) -> None:
        insmod("sleeper")
        insmod("sleeper-patch")
        machine.advance(30)
        assert machine.read(f"{LIVEPATCH}/sleeper_patch/transition") == "1\n"
        assert "sleeper_nap" in machine.read(f"proc/{machine.pid_of('sleeper')}/stack")

    def finish(self, machine: Machine) -> None:
        machine.advance(3)
        machine.wait_until(
            lambda: machine.read(f"{LIVEPATCH}/sleeper_patch/transition") == "0\n", "the transition"
        )

    def test_it_ends_when_the_thread_wakes_up(self, machine: Machine) -> None:
        machine.write("sys/module/sleeper/parameters/wake", "1")
        self.finish(machine)
        naps = machine.read("sys/module/sleeper/parameters/naps")
        machine.advance(3)  # in which the thread calls the replacement
        assert machine.read("sys/module/sleeper/parameters/naps") == naps != "0\n"
        disable(machine, "sleeper_patch")
        rmmod(machine, "sleeper")

    def test_it_ends_by_force(self, machine: Machine) -> None:
        machine.write(f"{LIVEPATCH}/sleeper_patch/force", "1")
        self.finish(machine)
        machine.write("sys/module/sleeper/parameters/wake", "1")
        machine.advance(3)
        disable(machine, "sleeper_patch")
        rmmod(machine, "sleeper")

    def stall_again(self, machine: Machine) -> None:
        """Enable the patch, and let the thread sleep in the replacement while it is disabled."""
        machine.write("sys/module/sleeper/parameters/wake", "1")
        self.finish(machine)
        machine.write("sys/module/sleeper_patch/parameters/asleep", "1")
        machine.advance(1)
        machine.write(f"{LIVEPATCH}/sleeper_patch/enabled", "0")
        machine.advance(30)
        assert machine.read(f"{LIVEPATCH}/sleeper_patch/transition") == "1\n"

    def test_disabling_stalls_too(self, machine: Machine) -> None:
        self.stall_again(machine)
        machine.write("sys/module/sleeper_patch/parameters/asleep", "0")
        machine.advance(3)
        machine.wait_until_gone(f"{LIVEPATCH}/sleeper_patch")
        machine.rmmod("sleeper_patch")
        rmmod(machine, "sleeper")

    def test_a_forced_removal_keeps_the_module(self, machine: Machine) -> None:
        self.stall_again(machine)
        machine.write(f"{LIVEPATCH}/sleeper_patch/force", "1")
        machine.advance(3)
        machine.wait_until_gone(f"{LIVEPATCH}/sleeper_patch")
        with pytest.raises(BlockingIOError):
            machine.rmmod("sleeper_patch")
        machine.write("sys/module/sleeper_patch/parameters/asleep", "0")
        machine.advance(1)
        machine.rmmod("sleeper_patch", force=True)
        rmmod(machine, "sleeper")


@needs_fuse
class TestModule:
    def test_the_patch_comes_first(self, machine: Machine, insmod: Insmod) -> None:
        insmod("greeting-patch")
        insmod("greeting")
        assert machine.read("proc/greeting") == "hello, patched world\n"
        machine.rmmod("greeting")
        disable(machine, "greeting_patch")

    def test_the_module_comes_first(self, machine: Machine, insmod: Insmod) -> None:
        insmod("greeting")
        assert machine.read("proc/greeting") == "hello, world\n"
        insmod("greeting-patch")
        assert machine.read("proc/greeting") == "hello, patched world\n"
        disable(machine, "greeting_patch")
        assert machine.read("proc/greeting") == "hello, world\n"
        machine.rmmod("greeting")


@needs_fuse
class TestCallbacks:
    def called(self, machine: Machine) -> list[str]:
        prefix = "callbacks_patch: "
        lines = [line[len(prefix) :] for line in machine.dmesg() if line.startswith(prefix)]
        machine.clear_log()
        return [line for line in lines if line.startswith(("pre", "post"))]

    def test_their_order(self, machine: Machine, insmod: Insmod) -> None:
        insmod("callbacks-patch")
        assert self.called(machine) == ["pre_patch of vmlinux", "post_patch of vmlinux"]
        insmod("callbacks-target")
        assert self.called(machine) == [
            "pre_patch of callbacks_target",
            "post_patch of callbacks_target",
        ]
        machine.rmmod("callbacks_target")
        assert self.called(machine) == [
            "pre_unpatch of callbacks_target",
            "post_unpatch of callbacks_target",
        ]
        disable(machine, "callbacks_patch")
        assert self.called(machine) == ["pre_unpatch of vmlinux", "post_unpatch of vmlinux"]

    def test_the_patch_is_refused(self, machine: Machine, insmod: Insmod) -> None:
        with pytest.raises(OSError) as caught:
            insmod("callbacks-patch", "refuse=vmlinux")
        assert caught.value.errno == errno.EBUSY

    def test_the_module_is_refused(self, machine: Machine, insmod: Insmod) -> None:
        insmod("callbacks-patch", "refuse=callbacks_target")
        with pytest.raises(OSError) as caught:
            insmod("callbacks-target")
        assert caught.value.errno == errno.EBUSY
        disable(machine, "callbacks_patch")


@needs_fuse
def test_shadow(machine: Machine, insmod: Insmod) -> None:
    insmod("shadow-target")
    machine.advance(3)
    insmod("shadow-patch")
    machine.advance(4)
    returned = [line for line in machine.dmesg() if "is returned" in line]
    assert returned[0] == "shadow_target: ticket 1 is returned"
    assert returned[1] == "shadow_patch: ticket 2 is returned, drawn before the patch"
    assert re.fullmatch(r"shadow_patch: ticket 1001 is returned after 20\d\d ms", returned[2])
    disable(machine, "shadow_patch")
    machine.advance(3)
    assert machine.dmesg()[-1].startswith("shadow_target: ticket ")
    assert "shadow_patch" not in machine.read("machine/allocations")
    rmmod(machine, "shadow_target")


@needs_fuse
def test_replace(machine: Machine, insmod: Insmod) -> None:
    version = machine.read("proc/version")
    insmod("replace-first")
    assert machine.read("proc/cmdline") == "command line of the first patch\n"
    assert machine.read("proc/version") == "version of the first patch\n"
    insmod("replace-second")
    machine.wait_until_gone(f"{LIVEPATCH}/replace_first")
    assert machine.read("proc/cmdline") == "command line of the second patch\n"
    assert machine.read("proc/version") == version
    machine.rmmod("replace_first")
    disable(machine, "replace_second")
