# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``klpfs``, as it is typed in a shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import eventually, opened, process

from klpfs.mounting import mounts
from klpfs.pytest_plugin import Machine

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

Ko = Callable[..., Path]
Done = tuple[int, str, str]

FAILING = """
#include <linux/module.h>
static int fail_init(void) { return -ENODEV; }
module_init(fail_init);
MODULE_LICENSE("GPL");
"""

UNKNOWN = """
#include <linux/module.h>
void nobody_has_this(void);
static int unknown_init(void) { nobody_has_this(); return 0; }
module_init(unknown_init);
MODULE_LICENSE("GPL");
"""


def klpfs(*arguments: str | Path, mount: str | Path | None = None, timeout: float = 60) -> Done:
    """Run klpfs; return exit status, stdout and stderr. ``mount`` is $KLPFS_MOUNT."""
    environment = {name: value for name, value in os.environ.items() if name != "KLPFS_MOUNT"}
    if mount is not None:
        environment["KLPFS_MOUNT"] = str(mount)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "klpfs", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=timeout, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("cli"))
    try:
        yield machine
    finally:
        machine.umount()


@pytest.fixture
def m(machine: Machine) -> Iterator[Path]:
    """Return the mount point of a machine without modules and with an empty log."""
    machine.clear_log()
    yield machine.mountpoint
    for name in ("conform", "conform_base"):
        if machine.path(f"sys/module/{name}").exists():
            machine.rmmod(name)


class TestInsmod:
    def test_success_prints_nothing(self, m: Path, ko: Ko) -> None:
        assert klpfs("insmod", ko("conform_base"), mount=m) == (0, "", "")
        assert (m / "sys/module/conform_base/initstate").read_text() == "live\n"

    def test_with_parameters(self, m: Path, ko: Ko) -> None:
        klpfs("insmod", ko("conform_base"), mount=m)
        assert klpfs("insmod", ko("conform"), "constant=7", "flag=y", mount=m) == (0, "", "")
        assert (m / "sys/module/conform/parameters/constant").read_text() == "7\n"
        assert (m / "sys/module/conform/parameters/flag").read_text() == "Y\n"

    @pytest.mark.parametrize(
        ("name", "text", "words", "why"),
        [
            ("failing", FAILING, (), "No such device"),
            ("unknown", UNKNOWN, (), "Unknown symbol in module"),
            ("conform_base", None, ("nonsense=\x01",), None),  # an unknown parameter is ignored
        ],
    )
    def test_what_the_kernel_refuses(
        self, m: Path, ko: Ko, name: str, text: str | None, words: tuple[str, ...], why: str | None
    ) -> None:
        module = ko(name, text)
        code, out, err = klpfs("insmod", module, *words, mount=m)
        assert out == ""
        if why is None:
            assert (code, err) == (0, "")
        else:
            assert (code, err) == (1, f"Error: could not insert module {module}: {why}\n")

    def test_a_module_that_is_loaded_already(self, m: Path, ko: Ko) -> None:
        klpfs("insmod", ko("conform_base"), mount=m)
        code, _, err = klpfs("insmod", ko("conform_base"), mount=m)
        assert code == 1
        assert err.endswith(": File exists\n")

    def test_a_bad_parameter(self, m: Path, ko: Ko) -> None:
        klpfs("insmod", ko("conform_base"), mount=m)
        code, _, err = klpfs("insmod", ko("conform"), "constant=many", mount=m)
        assert code == 1
        assert err.endswith(": Invalid parameters\n")

    def test_files_that_are_not_modules(self, m: Path, tmp_path: Path) -> None:
        text = tmp_path / "text.ko"
        text.write_text("not a module")
        code, _, err = klpfs("insmod", text, mount=m)
        assert (code, err) == (1, f"Error: could not insert module {text}: Invalid module format\n")
        code, _, err = klpfs("insmod", tmp_path / "nothing.ko", mount=m)
        assert code == 1
        assert err.endswith("nothing.ko: No such file or directory\n")
        code, _, err = klpfs("insmod", tmp_path, mount=m)
        assert (code, err) == (1, f"Error: could not load module {tmp_path}: Is a directory\n")


class TestRmmod:
    def test_success_prints_nothing(self, m: Path, ko: Ko) -> None:
        klpfs("insmod", ko("conform_base"), mount=m)
        assert klpfs("rmmod", "conform_base", mount=m) == (0, "", "")

    def test_takes_a_file_name_too(self, m: Path, ko: Ko) -> None:
        klpfs("insmod", ko("conform_base"), mount=m)
        assert klpfs("rmmod", "./conform-base.ko", mount=m) == (0, "", "")

    def test_one_in_use_and_one_not_loaded(self, m: Path, ko: Ko) -> None:
        klpfs("insmod", ko("conform_base"), mount=m)
        klpfs("insmod", ko("conform"), mount=m)
        code, out, err = klpfs("rmmod", "conform_base", "nothing", "conform", mount=m)
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            "Error: Module conform_base is in use by: conform",
            "Error: Module nothing is not currently loaded",
        ]
        assert not (m / "sys/module/conform").exists()  # the last one was unloaded nevertheless


def test_lsmod(m: Path, ko: Ko) -> None:
    assert klpfs("lsmod", mount=m) == (0, "Module                  Size  Used by\n", "")
    klpfs("insmod", ko("conform_base"), mount=m)
    klpfs("insmod", ko("conform"), mount=m)
    _, out, _ = klpfs("lsmod", mount=m)
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [(row[0], *row[2:]) for row in rows] == [
        ("conform", "0"),
        ("conform_base", "1", "conform"),
    ]
    assert all(int(row[1]) % 4096 == 0 for row in rows)


class TestDmesg:
    def test_prints_the_log_as_dmesg_does(self, m: Path) -> None:
        (m / "dev/kmsg").write_text("<6>hello\n")
        code, out, err = klpfs("dmesg", mount=m)
        assert (code, err) == (0, "")
        assert out.startswith("[")
        assert out.endswith("] hello\n")
        assert len(out.splitlines()) == 1

    def test_clear(self, m: Path) -> None:
        (m / "dev/kmsg").write_text("before\n")
        assert klpfs("dmesg", "-C", mount=m) == (0, "", "")
        (m / "dev/kmsg").write_text("after\n")
        assert [line[-5:] for line in klpfs("dmesg", mount=m)[1].splitlines()] == ["after"]
        with opened(m / "dev/kmsg", os.O_RDONLY) as log:
            assert b"Linux version" in os.read(log, 8192)  # the log is complete

    def test_follow(self, m: Path) -> None:
        (m / "dev/kmsg").write_text("before\n")
        with process(sys.executable, "-P", "-m", "klpfs", "-m", str(m), "dmesg", "-w") as dmesg:
            assert dmesg.stdout is not None
            assert dmesg.stdout.readline().endswith("before\n")
            (m / "dev/kmsg").write_text("new\n")
            assert dmesg.stdout.readline().endswith("new\n")
            dmesg.send_signal(signal.SIGINT)
            assert dmesg.wait(10) == -signal.SIGINT
            assert dmesg.stderr is not None
            assert dmesg.stderr.read() == ""

    def test_follow_ends_with_its_reader(self, m: Path) -> None:
        (m / "dev/kmsg").write_text("first\n")
        command = f"{sys.executable} -P -m klpfs -m {m} dmesg -w | head -1"
        with process("sh", "-c", command, start_new_session=True) as pipe:
            assert pipe.stdout is not None
            assert pipe.stdout.readline().endswith("first\n")

            def ended() -> bool:
                (m / "dev/kmsg").write_text("more\n")
                return pipe.poll() is not None

            assert eventually(ended)
            assert pipe.stderr is not None
            assert pipe.stderr.read() == ""


class TestWhichMachineIsMeant:
    def test_the_option_goes_before_the_variable(self, m: Path, tmp_path: Path) -> None:
        assert klpfs("-m", m, "lsmod", mount=tmp_path)[0] == 0
        assert klpfs("lsmod", "-m", m, mount=tmp_path)[0] == 0
        code, _, err = klpfs("lsmod", mount=tmp_path)
        assert code == 1
        assert err == f"Error: no machine is mounted on {tmp_path}; run 'klpfs mount {tmp_path}'\n"

    def test_several(self, machine: Machine, tmp_path: Path) -> None:
        other = Machine(tmp_path)
        try:
            code, _, err = klpfs("lsmod")
            assert code == 1
            assert "several machines are mounted" in err
            assert str(tmp_path) in err and str(machine.mountpoint) in err
            assert err.endswith("choose one with -m or $KLPFS_MOUNT\n")
        finally:
            other.umount()


class TestMountAndUmount:
    def test_a_session(self, tmp_path: Path) -> None:
        place = tmp_path / "k"
        place.mkdir()
        assert klpfs("mount", place) == (0, "", "")
        assert "BOOT_IMAGE" in (place / "proc/cmdline").read_text()
        with opened(place / "proc/cmdline"):
            code, _, err = klpfs("umount", place)
            assert code == 1
            assert err.startswith(f"Error: {place}: target is busy; ")
        assert klpfs("umount", place) == (0, "", "")
        assert mounts.mount_at(str(place)) is None
        code, _, err = klpfs("umount", place)
        assert (code, err) == (
            1,
            f"Error: {place} is not a klpfs mount; run 'findmnt -t fuse.klpfs' to list klpfs mounts\n",
        )  # fmt: skip

    def test_lazy_unmount(self, tmp_path: Path) -> None:
        klpfs("mount", tmp_path)
        with opened(tmp_path / "proc/cmdline"):
            assert klpfs("umount", "--lazy", tmp_path) == (0, "", "")
        assert os.listdir(tmp_path) == []

    def test_in_the_foreground_until_it_is_interrupted(self, tmp_path: Path) -> None:
        command = (sys.executable, "-P", "-m", "klpfs", "mount", "--foreground", str(tmp_path))
        with process(*command) as mount:
            assert eventually(lambda: (tmp_path / "machine").exists())
            mount.send_signal(signal.SIGINT)
            assert mount.wait(10) == 0
        assert mounts.mount_at(str(tmp_path)) is None

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("nothing",), "nothing does not exist; create it with 'mkdir -p "),
            (("file",), "file is not a directory"),
            (("--memory", "much", "."), "'much' is not a size; use one such as 256M"),
            (("--memory", "1M", "."), "1M is out of range; use 32M to 16G"),
            (("--kernel", "nothing", "."), "nothing"),
            (("--log-file", "nothing/log", "."), "nothing/log: No such file or directory"),
        ],
    )
    def test_mount_errors(self, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
        (tmp_path / "file").touch()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "klpfs", "mount", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert mounts.mount_at(str(tmp_path)) is None

    def test_the_size_of_its_memory(self, tmp_path: Path) -> None:
        klpfs("mount", "--memory", "64M", tmp_path)
        try:
            assert (tmp_path / "machine/memory").stat().st_size == 64 << 20
        finally:
            klpfs("umount", tmp_path)


def test_build(tmp_path: Path) -> None:
    (tmp_path / "good.c").write_text(FAILING)
    (tmp_path / "bad.c").write_text("nonsense")
    assert klpfs("build", "-q", tmp_path / "good.c", "-o", tmp_path / "out") == (0, "", "")
    assert (tmp_path / "out/good.ko").read_bytes()[:4] == b"\x7fELF"
    code, _, err = klpfs("build", tmp_path / "bad.c")
    assert code == 1
    assert "bad.c:1" in err
    code, _, err = klpfs("build", tmp_path / "nothing.c")
    assert (code, err) == (1, f"Error: {tmp_path}/nothing.c: no such file\n")


def test_version_and_help() -> None:
    assert klpfs("--version")[1].startswith("klpfs, version ")
    code, out, _ = klpfs("-h")
    assert code == 0
    for command in ("build", "dmesg", "insmod", "lsmod", "mount", "rmmod", "run", "umount"):
        assert f"\n  {command} " in out
    assert klpfs("nonsense")[0] == 2


def test_help_says_what_it_does_and_how() -> None:
    for command in ("build", "check", "insmod", "mount", "rmmod", "run", "umount"):
        code, out, err = klpfs(command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: klpfs {command} [OPTIONS] ")
    assert "Exit status: 0 if the patch works, 1 if it would fail, 2 if" in klpfs("check", "-h")[1]
    assert "Exit status: that of COMMAND, 127 if" in klpfs("run", "-h")[1]


def test_a_command_imports_no_more_than_it_needs() -> None:
    script = (
        "import sys, klpfs.cli; print(*{'trio', 'unicorn', 'pyfuse3', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
