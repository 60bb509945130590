# SPDX-License-Identifier: GPL-2.0-or-later
"""Patterns with wildcards: what they match, and that no pattern takes longer than its length says."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klpfs.machine.kernel.glob import glob, wildcard


@given(pattern=st.text("ab*?", max_size=12), text=st.text("abc", max_size=12))
def test_stars_and_question_marks_match_as_in_a_shell(pattern: str, text: str) -> None:
    expected = fnmatchcase(text, pattern)
    assert bool(wildcard(pattern).fullmatch(text)) == expected
    assert bool(glob(pattern).fullmatch(text)) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("schedule", "schedule", True),
        ("sched", "schedule", False),
        ("*_show", "cmdline_proc_show", True),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("[", "[", True),
        ("a.b", "axb", False),
    ],
)
def test_glob(pattern: str, text: str, matches: bool) -> None:
    assert bool(glob(pattern).fullmatch(text)) == matches


@pytest.mark.parametrize("compile_", [glob, wildcard])
def test_many_stars_do_not_take_for_ever(compile_: Callable[[str], re.Pattern[str]]) -> None:
    """With backtracking, this would take longer than anyone waits."""
    assert not compile_("*" * 30 + "a*" * 30 + "X").fullmatch("a" * 2000)
