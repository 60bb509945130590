# SPDX-License-Identifier: GPL-2.0-or-later
"""Two kernels' answers to the same stories, line by line."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

QEMU, KLPFS = "qemu", "klpfs"

NORMAL: tuple[tuple[str, str], ...] = (
    (r"^<(-?\d+)>\[ *\d+\.\d+\] ", r"<\1>"),
    (r"\b(0x)?ff[0-9a-f]{14}\b", "ADDRESS"),
    (r"\b6\.1\.0-[-\w]+", "RELEASE"),
    (r"\bkworker/\S+", "KWORKER"),
    (r"(?<=:)\d{2,}(?= (?:is|has) )", "PID"),
    (r"(?<=PID: )\d+|(?<=note: insmod\[)\d+", "PID"),
    (r"^(<\d>CPU: .* RELEASE) #.*$", r"\1"),
    (r"^(<\d>WARNING: .* at \S+ \w+)\+0x[0-9a-f]+/0x[0-9a-f]+", r"\1"),
    (r"\(____ptrval____\)|\b0{8}[0-9a-f]{8}\b", "POINTER"),
    (r"(?<= at )/\S+/(?=\w+\.c:\d)", ""),
    (r"^(<6>PGD ).*$", r"\1..."),
)
"""What differs from one run to the next on the same kernel: times, addresses, pids; and the release, which it
has in many places."""


@dataclass(frozen=True)
class Expected:
    """A difference that is there for a reason."""

    reason: str
    side: str
    """The kernel that has something in a way of its own."""
    substitutions: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    """Regular expressions, in which ^ and $ match at each line, and what the other kernel has there."""


@dataclass
class Story:
    """What became of a story."""

    name: str
    lines: int
    """That were compared."""
    differences: list[str]
    """A unified diff; empty if they are the same."""


@dataclass
class Comparison:
    stories: list[Story] = field(default_factory=list)
    expected: Counter[str] = field(default_factory=Counter)
    """How often each reason was needed."""

    @property
    def same(self) -> bool:
        return not any(story.differences for story in self.stories)


def compare(qemu: str, klpfs: str, expected: Iterable[Expected] = ()) -> Comparison:
    """Compare what the stories said on both kernels; what is ``expected`` does not count."""
    result = Comparison()
    expected = tuple(expected)
    theirs = dict(stories(normalised(qemu, expected, QEMU, result.expected)))
    ours = dict(stories(normalised(klpfs, expected, KLPFS, result.expected)))
    for name in {**theirs, **ours}:
        left, right = theirs.get(name, []), ours.get(name, [])
        diff = list(difflib.unified_diff(left, right, QEMU, KLPFS, lineterm="", n=4))
        result.stories.append(Story(name, len(left), diff))
    return result


def normalised(text: str, expected: Iterable[Expected], side: str, count: Counter[str]) -> str:
    """``text`` without what differs from run to run, and without what is expected to differ."""
    for pattern, replacement in NORMAL:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    for each in expected:
        if each.side == side:
            for pattern, instead in each.substitutions:
                text, times = re.subn(pattern, instead, text, flags=re.MULTILINE)
                count[each.reason] += times
    return text


def stories(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each story's name and lines."""
    parts = re.split(r"^=== (.*)\n", text, flags=re.MULTILINE)
    for name, lines in zip(parts[1::2], parts[2::2], strict=True):
        yield name, lines.strip("\n").splitlines()
