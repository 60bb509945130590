# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/compare-with-qemu without the kernels: how it compares their output."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from comparison import compare as comparison
from comparison import expected as expected_differences
from comparison.normalise import NORMALISATIONS, normalised
from comparison.stories import StoryFile

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


def test_only_what_means_something_counts() -> None:
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


def test_a_difference_that_is_expected_does_not_count_but_is_told() -> None:
    unsigned = comparison.Expected("nobody signs", "qemu", ((r"\(OEK\)$", "(OK)"),))
    unneeded = comparison.Expected("times differ", "klpfs", ((r"^never$", ""),))
    result = comparison.compare(THEIRS, OURS, [unsigned, unneeded])
    assert result.same
    assert result.expected == {"nobody signs": 1, "times differ": 0}


def test_a_story_that_one_of_them_did_not_finish() -> None:
    result = comparison.compare(THEIRS, OURS.split("=== nothing")[0] + "Killed\n")
    assert [bool(story.differences) for story in result.stories] == [True, False]
    assert "+Killed" in result.stories[0].differences


def test_every_expected_difference_has_a_reason_and_compiles() -> None:
    for expected in expected_differences.ALWAYS + expected_differences.EMBEDDED:
        assert expected.reason.endswith(".") and expected.side in (
            comparison.QEMU,
            comparison.KLPFS,
        )
        comparison.as_expected("", [expected], expected.side, Counter())


def test_every_normalisation_has_a_reason_and_is_counted() -> None:
    assert len({each.reason for each in NORMALISATIONS}) == len(NORMALISATIONS)
    assert all(each.reason.endswith(".") for each in NORMALISATIONS)
    count: Counter[str] = Counter()
    text = "<6>[    1.234567] sample at 0xffffffffc0483000, 00000000deadbeef\n"
    assert normalised(text, count) == "<6>sample at ADDRESS, POINTER\n"
    assert sorted(count.values()) == [0] * (len(NORMALISATIONS) - 3) + [1, 1, 1]


@pytest.mark.parametrize(
    ("path", "name"),
    [("01-at-first.sh", "at first"), ("/tmp/mine.sh", "mine")],
)
def test_a_story_is_named_by_its_file(path: str, name: str) -> None:
    assert StoryFile(Path(path)).name == name
