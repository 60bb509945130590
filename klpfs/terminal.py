# SPDX-License-Identifier: GPL-2.0-or-later
"""Text from a machine or a file, made safe to print on a terminal.

All output for people goes through `printable`: a terminal executes the escape sequences in it, and
directional characters reorder what is read.
"""

from __future__ import annotations

import unicodedata

LINES = "\n\t"
"""The control characters of a text of several lines."""
LOG = "\n\t\v\f\r"
"""The control characters that dmesg(1) prints as they are."""


def printable(text: str, keep: str = "") -> str:
    r"""Return ``text`` with all characters that are not printable as ``\x1b``, the format of dmesg(1).

    That is one ``\x`` and two digits for each byte in UTF-8. Bytes that were not valid UTF-8 (surrogates)
    are written so too. The control characters in ``keep`` are left as they are.
    """
    if text.isprintable():
        return text
    return "".join([c if c in keep or _is_printable(c) else _escape(c) for c in text])


def _is_printable(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    try:
        data = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        data = character.encode("utf-8", "surrogatepass")
    return "".join([f"\\x{byte:02x}" for byte in data])
