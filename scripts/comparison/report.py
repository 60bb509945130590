# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a comparison, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from comparison.compare import Comparison, Story
from comparison.expected import ALWAYS, EMBEDDED
from comparison.normalise import NORMALISATIONS


def story_text(story: Story) -> str:
    """Return the line of a story, with its differences."""
    verdict = "DIFFERS" if story.differences else "same   "
    lines = [f"{verdict} {story.name} ({story.lines} lines)"]
    return "\n        ".join([*lines, *story.differences[2:]])


def summary(result: Comparison, kernels: Mapping[str, str], seconds: Mapping[str, float]) -> str:
    """Return what comes after the stories. ``kernels`` and ``seconds`` are by side."""
    same = sum(not story.differences for story in result.stories)
    lines = sum(story.lines for story in result.stories)
    return "\n".join(
        [
            *_counted("Removed before the comparison:", result.normalised),
            *_counted("Differences that are expected:", result.expected),
            f"\n{same} of {len(result.stories)} stories are the same, line by line ({lines} lines):",
            *(f"  {side:6} {name}, in {seconds[side]:.1f} s" for side, name in kernels.items()),
        ]
    )


def _counted(title: str, reasons: Mapping[str, int]) -> list[str]:
    return [f"\n{title}", *(f"  {times:5} {reason}" for reason, times in reasons.items())]


def reasons() -> str:
    """Return the reason and the patterns of everything that does not count as a difference."""
    lines = ["Removed before the comparison, on both sides:"]
    for normalisation in NORMALISATIONS:
        lines += [f"  {normalisation.reason}", f"      {normalisation.pattern}"]
    for title, differences in (("always", ALWAYS), ("with the embedded kernel", EMBEDDED)):
        lines.append(f"\nDifferences that are expected {title}:")
        for expected in differences:
            lines.append(f"  {expected.side}: {expected.reason}")
            lines += [f"      {pattern}" for pattern, _ in expected.substitutions]
    return "\n".join(lines)


def as_json(result: Comparison, kernels: Mapping[str, str], seconds: Mapping[str, float]) -> str:
    """Return the whole result as JSON."""
    return json.dumps(
        {
            "same": result.same,
            "kernels": kernels,
            "seconds": {side: round(took, 1) for side, took in seconds.items()},
            "stories": [vars(story) for story in result.stories],
            "expected": result.expected,
            "normalised": result.normalised,
        },
        indent=2,
    )
