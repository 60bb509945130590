# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/compare-with-qemu makes of what two kernels say. That takes minutes; this is its pure part."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    return pytest.importorskip("comparison")


THEIRS = """stray output before the first story
=== the sample
$ insmod /lib/modules/6.1.0-56-amd64/extra/sample.ko
sample 16384 1 - Live 0xffffffffc0483000 (OEK)
<5>[    3.611562] livepatch: enabling patch 'sample'

=== nothing
"""
OURS = """=== the sample
$ insmod /lib/modules/6.1.0-klpfs/extra/sample.ko
sample 16384 1 - Live 0xffffffffa0001000 (OK)
<5>[    0.125000] livepatch: enabling patch 'sample'

=== nothing
"""


def test_only_what_means_something_counts(comparison) -> None:
    result = comparison.compare(THEIRS, OURS)
    sample, nothing = result.stories
    assert (sample.name, sample.lines, nothing.name, nothing.lines) == (
        "the sample",
        3,
        "nothing",
        0,
    )
    assert [line for line in sample.differences if line[0] in "+-"] == [
        "--- qemu",
        "+++ klpfs",
        "-sample 16384 1 - Live ADDRESS (OEK)",
        "+sample 16384 1 - Live ADDRESS (OK)",
    ]
    assert not result.same


def test_a_difference_that_is_expected_does_not_count_but_is_told(comparison) -> None:
    unsigned = comparison.Expected("nobody signs", "qemu", ((r"\(OEK\)$", "(OK)"),))
    unneeded = comparison.Expected("times differ", "klpfs", ((r"^never$", ""),))
    result = comparison.compare(THEIRS, OURS, [unsigned, unneeded])
    assert result.same
    assert result.expected == {"nobody signs": 1, "times differ": 0}


def test_a_story_that_one_of_them_did_not_finish(comparison) -> None:
    result = comparison.compare(THEIRS, OURS.split("=== nothing")[0] + "Killed\n")
    assert [bool(story.differences) for story in result.stories] == [True, False]
    assert "+Killed" in result.stories[0].differences


def test_every_expected_difference_has_a_reason_and_compiles(comparison) -> None:
    import expected_differences

    for expected in expected_differences.ALWAYS + expected_differences.EMBEDDED:
        assert expected.reason.endswith(".") and expected.side in (
            comparison.QEMU,
            comparison.KLPFS,
        )
        comparison.normalised("", [expected], expected.side, comparison.Counter())
