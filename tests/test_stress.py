# SPDX-License-Identifier: GPL-2.0-or-later
"""A short run of scripts/stress: 64 processes use one machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stressing import stress

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")


def test_only_expected_errors_and_no_stuck_process(tmp_path: Path) -> None:
    report = stress(tmp_path, seconds=12)
    print(report.text())
    assert report.good, report.text()
    # Each kind of operation was done, and some met removed objects.
    assert (
        min(report.done[what] for what in ("read", "list", "stat", "write", "insmod", "kmsg")) > 0
    )
    assert any(name.endswith(("ENOENT", "ENODEV")) for name in report.errors)
