# SPDX-License-Identifier: GPL-2.0-or-later
"""Patterns with wildcards, as users and modules give them. lib/glob.c, lib/parser.c.

A pattern becomes a regular expression that never goes back behind a ``*``: whatever it is, the time
for a match is at most proportional to the length of the pattern times that of the text.
"""

from __future__ import annotations

import re

Pattern = re.Pattern[str]


def wildcard(pattern: str) -> Pattern:
    """``match_wildcard``: compile a pattern with * and ?, for `re.Pattern.fullmatch`."""
    return _joined([[re.escape(c) if c != "?" else "." for c in p] for p in pattern.split("*")])


def glob(pattern: str) -> Pattern:
    r"""``glob_match``: compile a pattern with \*, ?, [a-z], [!a-z] and \\, for `re.Pattern.fullmatch`."""
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        c, at = pattern[at], at + 1
        if c == "*":
            pieces.append([])
        elif c == "?":
            pieces[-1].append(".")
        elif c == "[" and (found := _class(pattern, at)) is not None:
            expression, at = found
            pieces[-1].append(expression)
        elif c == "\\" and at < len(pattern):
            pieces[-1].append(re.escape(pattern[at]))
            at += 1
        else:
            pieces[-1].append(re.escape(c))
    return _joined(pieces)


def _joined(pieces: list[list[str]]) -> Pattern:
    """Compile the pieces between the stars. The first place where a piece matches is as good as any
    later one, so an atomic group keeps it."""
    first, *rest = ("".join(piece) for piece in pieces)
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return re.compile(first + middle + "".join(f".*{piece}" for piece in rest[-1:]), re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int] | None:
    """Return the expression of the character class that begins at ``at``, behind the bracket, and the
    place behind it. Return None if it has no end: then the bracket is an ordinary character."""
    inverted = pattern[at : at + 1] == "!"
    at += inverted
    spans: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not spans):
        low = high = pattern[at]
        at += 1
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high = pattern[at + 1]
            at += 2
        spans.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    if at >= len(pattern):
        return None
    body = "".join(spans)
    if not body:  # only empty ranges
        return ("." if inverted else "(?!)"), at + 1
    return f"[{'^' if inverted else ''}{body}]", at + 1
