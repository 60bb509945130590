# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest fixtures, in projects of users who have installed klpfs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from klpfs.cli.example import SAMPLES
from klpfs.mounting.mounts import find_mounts

pytest_plugins = ["pytester"]

needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

SAMPLE = str(SAMPLES / "livepatch-sample.c")
SECONDS = 60


def mounts_below(directory: Path) -> list[Path]:
    """Return the mount points of the machines that are mounted below a directory."""
    return [mount for mount in find_mounts() if directory in mount.parents]


# The fixtures


@needs_fuse
def test_a_session_of_tests(pytester: pytest.Pytester) -> None:
    """The example of the README, and each promise of a docstring."""
    pytester.makepyfile(
        f"""
        import pytest

        def test_my_patch(klpfs_machine, tmp_path):
            machine = klpfs_machine
            machine.insmod(machine.build({SAMPLE!r}, output=tmp_path))
            assert machine.read("proc/cmdline") == "this has been live patched\\n"
            machine.write("sys/kernel/livepatch/livepatch_sample/enabled", "0")
            machine.wait_until_gone("sys/kernel/livepatch/livepatch_sample")
            machine.rmmod("livepatch_sample")
            assert "livepatch: 'livepatch_sample': unpatching complete" in machine.dmesg()
            machine.clear_log()
            assert machine.dmesg() == []

        def test_time_is_virtual(klpfs_machine):
            before = float(klpfs_machine.read("proc/uptime").split()[0])
            klpfs_machine.advance(3600)
            assert float(klpfs_machine.read("proc/uptime").split()[0]) - before == 3600

        def test_each_test_has_its_own(klpfs_machine):
            assert klpfs_machine.read("proc/modules") == ""

        def test_two_machines(klpfs_mount):
            one, two = klpfs_mount("--memory", "64M"), klpfs_mount("--memory", "128M")
            assert one.path("machine/memory").stat().st_size == 64 << 20
            assert two.path("machine/memory").stat().st_size == 128 << 20
            assert one.pid_of("kthreadd") == two.pid_of("kthreadd")

        def test_errors(klpfs_machine):
            with pytest.raises(OSError, match="Exec format error"):
                klpfs_machine.insmod(b"not a module")
            with pytest.raises(FileNotFoundError):
                klpfs_machine.rmmod("nothing")
            with pytest.raises(LookupError):
                klpfs_machine.pid_of("no-such-task")
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5)
    assert not mounts_below(pytester.path)


@needs_fuse
def test_a_machine_goes_with_a_test_that_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, signal

        def test_fails(klpfs_machine):
            open(klpfs_machine.path("dev/kmsg"), "rb", buffering=0)
            assert False

        def test_kills_it(klpfs_machine):
            os.kill(int(klpfs_machine.read("machine/pid")), signal.SIGKILL)
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    assert not mounts_below(pytester.path)


def test_the_fixtures_are_documented(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["klpfs_mount*", "klpfs_machine*"])


# Projects whose own modules have the names of klpfs's, or of the packages that it needs

LAYOUTS = {
    "packages": {
        "machine/__init__.py": "answer = 42\n",
        "modules/__init__.py": "answer = 42\n",
    },
    "directories": {
        "machine/answer.py": "",
        "modules/answer.py": "",
    },
    "files": {
        "machine.py": "answer = 42\n",
        "modules.py": "answer = 42\n",
    },
}
COMMANDS = {
    "pytest": [os.path.join(sysconfig.get_path("scripts"), "pytest")],
    "python -m pytest": [sys.executable, "-m", "pytest"],
}
NEEDED = (
    *("capstone", "click", "elftools", "lz4", "pyfuse3", "rich", "trio", "unicorn", "zstandard"),
)
"""The packages that klpfs needs."""


@pytest.fixture(params=LAYOUTS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with ``machine`` and ``modules`` of its own, each with an ``answer``."""
    write(tmp_path, LAYOUTS[request.param])
    return tmp_path


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> list[str]:
    """A command that runs the tests of a project."""
    return COMMANDS[request.param]


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def run(command: list[str], directory: Path) -> str:
    """Run a command in a directory, and return its output. It must succeed."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_fuse
def test_a_project_has_its_own_machine_and_modules(project: Path, command: list[str]) -> None:
    write(
        project,
        {
            "test_it.py": """
from machine import answer
from modules import answer as another

def test_it(klpfs_machine):
    assert klpfs_machine.read("proc/version").startswith("Linux version")
"""
        },
    )
    assert "1 passed" in run([*command, "-q"], project)


def test_a_project_without_klpfs(project: Path, command: list[str]) -> None:
    """Pytest has loaded the plugin, and nothing else of klpfs."""
    write(
        project,
        {
            "test_it.py": """
import sys
from machine import answer
from modules import answer as another

def test_it():
    loaded = {name for name in sys.modules if name.split(".")[0] == "klpfs"}
    assert loaded == {"klpfs", "klpfs.pytest_plugin"}
"""
        },
    )
    assert "1 passed" in run([*command, "-q"], project)


@needs_fuse
def test_a_project_has_a_trio_of_its_own(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or another module with the name of a package that klpfs needs."""
    write(
        tmp_path, {f"{name}.py": f"raise ImportError('{name} of the project')" for name in NEEDED}
    )
    write(
        tmp_path,
        {
            "test_it.py": f"""
def test_it(klpfs_machine, tmp_path):
    klpfs_machine.insmod(klpfs_machine.build({SAMPLE!r}, output=tmp_path))
    assert klpfs_machine.read("proc/cmdline") == "this has been live patched\\n"
"""
        },
    )
    # Other plugins, as pytest-trio, may import such a module.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert "1 passed" in run([*command, "-q", "-p", "klpfs"], tmp_path)
    assert "klpfs, version" in run([sys.executable, "-m", "klpfs", "--version"], tmp_path)


@needs_fuse
def test_a_project_has_a_script_with_the_name_klpfs(tmp_path: Path) -> None:
    """It is not taken for the command, although it is in the current directory."""
    write(
        tmp_path,
        {
            "klpfs.py": "raise ImportError('klpfs of the project')",
            "test_it.py": """
def test_it(klpfs_machine):
    assert klpfs_machine.dmesg()
""",
        },
    )
    assert "1 passed" in run([*COMMANDS["pytest"], "-q"], tmp_path)


def test_the_plugin_imports_the_standard_library_only() -> None:
    program = """
import sys, pytest
before = set(sys.modules)
import klpfs.pytest_plugin
print(*set(sys.modules) - before)
"""
    imported = run([sys.executable, "-P", "-c", program], Path("/")).split()
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {
        "klpfs",
        "klpfs.pytest_plugin",
    }
