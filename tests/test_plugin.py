# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest fixtures, as somebody uses them who has klpfs installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from klpfs.example import SAMPLES
from klpfs.mounting.mounts import find_mounts

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

pytest_plugins = ["pytester"]

SAMPLE = str(SAMPLES / "livepatch-sample.c")


def mounts_below(directory: Path) -> list[Path]:
    """The machines of the tests inside."""
    return [mount for mount in find_mounts() if directory in mount.parents]


def test_a_session_of_tests(pytester: pytest.Pytester) -> None:
    """The README's example, and what else the docstrings promise."""
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
                klpfs_machine.pid_of("nobody")
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5)
    assert not mounts_below(pytester.path)


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
