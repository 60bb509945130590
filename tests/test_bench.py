# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/bench: every row, once and small. The speed is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "scripts/bench"
BY_QEMU = ("selftests", "qemu-memory")
"""Rows that need QEMU, which --quick leaves out."""


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")
def test_every_row_has_figures(tmp_path: Path) -> None:
    environment = {**os.environ, "KLPFS_PYTHON": sys.executable, "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, str(BENCH), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    names = {figure["name"] for figure in figures}
    assert {"guest: calls", "trap: kmalloc", "task switch", "open, read, close"} <= names
    for figure in figures:
        if figure["ours"] is None:
            assert figure["name"] in BY_QEMU or "there is no" in figure["note"], figure
        else:
            assert isinstance(figure["ours"], int | float), figure
        if figure["reference"] is not None:
            assert figure["ratio"] == pytest.approx(figure["ours"] / figure["reference"])
    assert not list(tmp_path.iterdir())  # a quick run is not stored


def test_rows_are_chosen_by_how_they_begin() -> None:
    environment = {**os.environ, "KLPFS_PYTHON": sys.executable}

    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BENCH), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    assert "patched-call" in bench("--list").stdout.split()
    done = bench("--only", "nothing-like-it")
    assert done.returncode == 2
    assert "no row begins with nothing-like-it" in done.stderr
