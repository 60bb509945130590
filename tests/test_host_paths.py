# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that become paths of the host: releases, mount points, sources and results of klpfs build."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import vmlinux_maker
from file_operations import NOBODY
from processes import in_a_child

from klpfs import control
from klpfs.machine.host_names import is_host_name
from klpfs.machine.image import ImageError, distribution, embedded
from klpfs.modules import kbuild
from klpfs.mounting import mounts
from klpfs.pytest_plugin import Machine
from klpfs.running import namespace

SECONDS = 60
SOURCE = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'


def klpfs(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "klpfs", *map(str, arguments)],
        capture_output=True, text=True, timeout=SECONDS, check=False, env=env, cwd=cwd,
    )  # fmt: skip


# Releases

BAD_RELEASES = (
    "../../x", "..", ".", "/", "/etc", "a/b", "-b", "--help", "a\x1b[31m", "a\x7f", "a\u202eb", "x" * 65,
    "a\xa0b", "a\udc80",
)  # fmt: skip


@pytest.mark.parametrize("name", [*BAD_RELEASES, "", "a b", "a\nb", "a\0b"])
def test_a_name_that_is_not_one_component(name: str) -> None:
    assert not is_host_name(name, 64)


@pytest.mark.parametrize("name", ["6.1.0-klpfs", "6.1.0-56-amd64+", "...", ".x", "größe", "x" * 64])
def test_a_name_that_is_one_component(name: str) -> None:
    assert is_host_name(name, 64)


@pytest.mark.parametrize("release", BAD_RELEASES)
def test_no_image_has_a_bad_release(release: str) -> None:
    with pytest.raises(ImageError, match="is not a valid directory name"):
        replace(embedded.load(), release=release)


def test_a_kernel_file_with_a_bad_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    release = vmlinux_maker.RELEASE.encode()
    bad = b"../../x".ljust(len(release), b"x")
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(vmlinux_maker.Kernel().vmlinux().replace(release, bad))
    with pytest.raises(ImageError) as error:
        distribution.load(vmlinux)
    assert str(error.value) == (
        f"{vmlinux} cannot be used as a kernel: its release {bad.decode()!r} is not a valid "
        "directory name"
    )
    for command in (("mount", "--kernel", vmlinux, tmp_path), ("run", "--kernel", vmlinux, "true")):
        done = klpfs(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Error: {error.value}\n"
    assert not list(tmp_path.glob("cache/klpfs/*"))


def test_modules_with_odd_file_names_are_not_listed(
    ko: Callable[..., Path], tmp_path: Path
) -> None:
    """A line in modules.dep is a list of paths."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    data = ko("livepatch-sample").read_bytes()
    for name in ("good", "a\nb", "a b", "-x", "c\x1b"):
        (tmp_path / f"{name}.ko").write_bytes(data)

    def names() -> list[str]:
        namespace._unshare()
        namespace._mount("none", "/", None, namespace.MS_REC | namespace.MS_PRIVATE)
        namespace._mount_modules("6.1.0-klpfs", [tmp_path])
        return os.listdir("/lib/modules/6.1.0-klpfs/extra")

    assert in_a_child(names) == ["good.ko"]


# Mount points


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, open_directory: Path) -> Iterator[Machine]:
    """A machine of root, mounted with --allow-other."""
    directory = open_directory / "machine"
    directory.mkdir()
    machine = Machine(
        directory, "--virtual-time", *(["--allow-other"] if os.geteuid() == 0 else [])
    )
    yield machine
    machine.umount()


def pretend(directory: Path) -> None:
    """Make a directory look like a machine."""
    for name in ("machine/procview", "proc/sys/kernel", "sys/kernel", "dev"):
        (directory / name).mkdir(parents=True)
    (directory / "proc/sys/kernel/osrelease").write_text("../../../tmp/x\n")
    for name in ("dev/kmsg", "machine/insmod", "machine/syslog", "proc/modules"):
        (directory / name).touch()


@pytest.mark.parametrize(
    "command",
    [("lsmod",), ("dmesg",), ("dmesg", "-C"), ("rmmod", "x"), ("insmod", "/dev/null"), ("run", "true")],
)  # fmt: skip
def test_a_directory_is_no_machine(tmp_path: Path, command: tuple[str, ...]) -> None:
    pretend(tmp_path)
    for options, environment in ((["-m", str(tmp_path)], {}), ([], {"KLPFS_MOUNT": str(tmp_path)})):
        name, *arguments = command
        done = klpfs(name, *options, *arguments, env={**os.environ, **environment})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"Error: no machine is mounted on {tmp_path}; run 'klpfs mount {tmp_path}'\n"
        )


@pytest.mark.parametrize("path", ["/", "/proc", "/dev", "/nonexistent", "/etc/passwd", ""])
def test_another_mount_is_no_machine(path: str, tmp_path: Path) -> None:
    with pytest.raises(mounts.MountError, match="no machine is mounted on"):
        mounts.open_machine(Path(path) if path else tmp_path)


def test_a_directory_of_a_machine_is_no_machine(place: Machine) -> None:
    with pytest.raises(mounts.MountError, match="no machine is mounted on"):
        mounts.open_machine(place.path("machine"))


def test_a_link_to_a_machine(place: Machine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place.mountpoint)
    assert control.find_machine(str(tmp_path / "link")) == tmp_path / "link"
    os.close(mounts.open_machine(tmp_path / "link"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_machine_of_another_user(place: Machine) -> None:
    def attempt() -> str:
        try:
            return str(control.find_machine(str(place.mountpoint)))
        except control.NoMachine as error:
            return str(error)

    assert in_a_child(attempt) == str(place.mountpoint)
    message = f"the machine on {place.mountpoint} belongs to another user (uid 0)"
    assert in_a_child(attempt, NOBODY) == message
    assert place.mountpoint not in in_a_child(control.machines, NOBODY)


def test_commands_find_the_machine_inside_klpfs_run(place: Machine) -> None:
    """There it belongs to the user outside of the user namespace, if there is one."""
    script = f"{sys.executable} -P -m klpfs lsmod"
    done = klpfs("run", "-m", place.mountpoint, "--", "sh", "-c", script)
    if "klpfs run needs" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.stdout, done.stderr) == ("Module                  Size  Used by\n", "")


# klpfs build


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory whose file names gcc takes for options that run a program."""
    directory = tmp_path / "hostile"
    directory.mkdir()
    wrapper = directory / "w.sh"
    wrapper.write_text('#!/bin/sh\necho > pwned\nexec "$@"\n')
    wrapper.chmod(0o755)
    for name in (
        "good.c",
        "@x.c",
        "-wrapper=w.sh.c",
        "-B.c",
        "-o.c",
        "--help.c",
        "-fplugin=x.c",
        "a=b.c",
    ):
        (directory / name).write_text(SOURCE)
    (directory / "x.c").write_text("-wrapper ./w.sh good.c")
    (directory / "x").write_text("-wrapper ./w.sh good.c")
    return directory


def test_gcc_takes_no_file_name_for_an_option(hostile: Path) -> None:
    names = sorted(path.name for path in hostile.glob("*.c") if path.name != "x.c")
    done = klpfs("build", "-q", "-o", "out", "--", *names, cwd=hostile)
    assert (done.returncode, done.stderr) == (0, "")
    built = {path.name for path in (hostile / "out").iterdir()}
    assert built == {f"{name.removesuffix('.c')}.ko" for name in names}
    assert not (hostile / "pwned").exists()


def test_the_shell_s_pattern_for_all_sources(hostile: Path) -> None:
    script = (
        f"{sys.executable} -P -m klpfs build *.c -o out; {sys.executable} -P -m klpfs build ./*.c"
    )
    subprocess.run(["bash", "-c", script], cwd=hostile, capture_output=True, timeout=SECONDS)
    assert not (hostile / "pwned").exists()


@pytest.mark.parametrize("name", ['a"b.c', "a\\b.c", "a\nb.c", "a\x1b[31mb.c"])
def test_a_name_that_cannot_be_a_string_in_c(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SOURCE)
    with pytest.raises(ValueError, match="cannot be in that of a module"):
        kbuild.build([tmp_path / name])
    done = klpfs("build", tmp_path / name)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.strip().isprintable()


def test_no_planted_link_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output, victim = tmp_path / "good.c", tmp_path / "out", tmp_path / "victim"
    source.write_text(SOURCE)
    output.mkdir()
    victim.write_text("untouched")
    for i in range(os.getpid(), os.getpid() + 3):
        (output / f".good.ko.{i}").symlink_to(victim)
    monkeypatch.setattr(secrets, "token_hex", lambda _size: "guessed")
    (output / ".guessed.ko").symlink_to(victim)
    with pytest.raises(FileExistsError):
        kbuild.build([source], output)
    (output / ".guessed.ko").unlink()
    (output / "good.ko").symlink_to(victim)
    [built] = kbuild.build([source], output)
    assert not built.is_symlink()
    assert victim.read_text() == "untouched"
    assert not (output / ".guessed.ko").exists()


def test_the_mode_of_the_result_follows_the_umask(tmp_path: Path) -> None:
    (tmp_path / "good.c").write_text(SOURCE)
    before = os.umask(0o027)
    try:
        [built] = kbuild.build([tmp_path / "good.c"], tmp_path / "out")
    finally:
        os.umask(before)
    assert built.stat().st_mode & 0o777 == 0o640
