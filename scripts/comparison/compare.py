# SPDX-License-Identifier: GPL-2.0-or-later
"""The output of two kernels for the same stories, compared line by line."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from comparison import normalise

QEMU, KLPFS = "qemu", "klpfs"


@dataclass(frozen=True)
class Expected:
    """A difference that has a reason."""

    reason: str
    side: str
    """The kernel whose output is changed."""
    substitutions: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    """Regular expressions, in which ^ and $ match at each line, and what the other kernel prints
    there."""


@dataclass
class Story:
    """The result of a story."""

    name: str
    lines: int
    """The number of lines that were compared."""
    differences: list[str]
    """A unified diff; empty if the outputs are the same."""


@dataclass
class Comparison:
    """The result of all stories."""

    stories: list[Story] = field(default_factory=list)
    expected: Counter[str] = field(default_factory=Counter)
    """How often each expected difference occurred, by its reason."""
    normalised: Counter[str] = field(default_factory=Counter)
    """How often each normalisation applied, by its reason."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not any(story.differences for story in self.stories)

    def add(self, other: Comparison) -> None:
        """Add the stories of another comparison."""
        self.stories += other.stories
        for mine, more in ((self.expected, other.expected), (self.normalised, other.normalised)):
            for reason, times in more.items():
                mine[reason] += times


def compare(qemu: str, klpfs: str, expected: Iterable[Expected] = ()) -> Comparison:
    """Compare the output of the stories on both kernels, without the differences that are
    ``expected``."""
    result = Comparison()
    expected = tuple(expected)
    outputs = []
    for side, text in ((QEMU, qemu), (KLPFS, klpfs)):
        text = normalise.normalised(text, result.normalised)
        outputs.append(dict(stories(as_expected(text, expected, side, result.expected))))
    theirs, ours = outputs
    for name in {**theirs, **ours}:
        left, right = theirs.get(name, []), ours.get(name, [])
        diff = list(difflib.unified_diff(left, right, QEMU, KLPFS, lineterm="", n=4))
        result.stories.append(Story(name, len(left), diff))
    return result


def as_expected(text: str, expected: Iterable[Expected], side: str, count: Counter[str]) -> str:
    """Return the output of ``side`` without its expected differences, and count them by reason."""
    for each in expected:
        if each.side == side:
            for pattern, instead in each.substitutions:
                text, times = re.subn(pattern, instead, text, flags=re.MULTILINE)
                count[each.reason] += times
    return text


def stories(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each story in an output."""
    parts = re.split(r"^=== (.*)\n", text, flags=re.MULTILINE)
    for name, lines in zip(parts[1::2], parts[2::2], strict=True):
        yield name, lines.strip("\n").splitlines()
