# SPDX-License-Identifier: GPL-2.0-or-later
"""64 processes at one machine for a while; ``scripts/stress`` does it for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stressing import stress

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")


def test_no_error_but_the_kernels_and_nobody_stuck(tmp_path: Path) -> None:
    report = stress(tmp_path, seconds=12)
    print(report.text())
    assert report.good, report.text()
    # It was not idle: each kind of operation was done, and met what had gone.
    assert (
        min(report.done[what] for what in ("read", "list", "stat", "write", "insmod", "kmsg")) > 0
    )
    assert any(name.endswith(("ENOENT", "ENODEV")) for name in report.errors)
