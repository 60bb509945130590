# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch selftests of Linux 6.1, unmodified: two of the six scripts, and one that fails.

scripts/upstream-selftests runs all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent.parent / "scripts/upstream-selftests"
SECONDS = 120
TESTS = "tools/testing/selftests/livepatch"

Selftests = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def selftests(linux_source: Path) -> Selftests:
    """Run scripts of a tree that has the tests; skips where it cannot be done."""
    for tool in ("modprobe", "modinfo", "depmod", "rmmod", "sysctl", "dmesg", "awk"):
        if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            pytest.skip(f"there is no {tool}")
    probe = [sys.executable, "-P", "-m", "klpfs", "run", "--kernel", "embedded", "--", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=SECONDS)
    if "klpfs run needs" in done.stderr:  # a file of the host
        pytest.skip(done.stderr.strip())

    def run(*arguments: str, tree: Path = linux_source) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "KLPFS_LINUX_SOURCE": str(tree),
            "KLPFS_PYTHON": sys.executable,
        }
        return subprocess.run(
            [str(RUNNER), *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
        )

    return run


def test_two_scripts_pass(selftests: Selftests) -> None:
    done = selftests("test-livepatch.sh", "test-ftrace.sh")
    lines = done.stdout.splitlines()
    assert lines[:-1] == [
        "ok      test-livepatch.sh: basic function patching",
        "ok      test-livepatch.sh: multiple livepatches",
        "ok      test-livepatch.sh: atomic replace livepatch",
        "ok      test-ftrace.sh: livepatch interaction with ftrace_enabled sysctl",
    ]
    assert lines[-1].startswith("4 of 4 cases passed in ")
    assert done.returncode == 0


def test_a_case_that_fails_is_told(
    selftests: Selftests, linux_source: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "linux"
    for part in ("samples/livepatch", "lib/livepatch", TESTS):
        shutil.copytree(linux_source / part, tree / part)
    script = tree / TESTS / "test-sysfs.sh"
    script.write_text(script.read_text().replace("patching complete", "patching completed", 1))
    done = selftests("--tap", "test-sysfs.sh", tree=tree)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["TAP version 13", "1..2", "not ok 1 - test-sysfs.sh: sysfs test"]
    assert "# -livepatch: 'test_klp_livepatch': patching completed" in lines
    assert "not ok 2 - test-sysfs.sh: a case that was not reached" in lines
    assert lines[-1].startswith("# 0 of 2 cases passed in ")
    assert done.returncode == 1
