# SPDX-License-Identifier: GPL-2.0-or-later
"""What is removed from the output of both kernels before it is compared, and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Normalisation:
    """Something that differs between two runs on the same kernel, or names the kernel."""

    reason: str
    pattern: str
    """A regular expression, in which ^ and $ match at each line."""
    replacement: str


NORMALISATIONS = (
    Normalisation(
        "The time of a log line depends on how fast the computer is.",
        r"^<(-?\d+)>\[ *\d+\.\d+\] ",
        r"<\1>",
    ),
    Normalisation(
        "Addresses depend on the image, on KASLR and on the order in which memory is allocated.",
        r"\b(0x)?ff[0-9a-f]{14}\b",
        "ADDRESS",
    ),
    Normalisation(
        "The release names the kernel.",
        r"\b6\.1\.0-[-\w]+",
        "RELEASE",
    ),
    Normalisation(
        "Any worker thread may run a work item.",
        r"\bkworker/\S+",
        "KWORKER",
    ),
    Normalisation(
        "A pid depends on how many processes there were before (debug messages of livepatch).",
        r"(?<=:)\d{2,}(?= (?:is|has) )",
        "PID",
    ),
    Normalisation(
        "A pid depends on how many processes there were before (reports of a WARN or an Oops).",
        r"(?<=PID: )\d+|(?<=note: insmod\[)\d+",
        "PID",
    ),
    Normalisation(
        "The number and date of the build, in a report, name the kernel.",
        r"^(<\d>CPU: .* RELEASE) #.*$",
        r"\1",
    ),
    Normalisation(
        "The offset of a WARN in its function depends on the compiler.",
        r"^(<\d>WARNING: .* at \S+ \w+)\+0x[0-9a-f]+/0x[0-9a-f]+",
        r"\1",
    ),
    Normalisation(
        "%p prints a hash, with a key that is random for each boot.",
        r"\b0{8}[0-9a-f]{8}\b",
        "POINTER",
    ),
    Normalisation(
        "The directory of a source file depends on where the module was built.",
        r"(?<= at )/\S+/(?=\w+\.c:\d)",
        "",
    ),
    Normalisation(
        "Another task may be due at any time: the flag N of a trace entry.",
        r"^(\[\d+\] \S)N(?=\S{3} TIME:)",
        r"\1.",
    ),
    Normalisation(
        "The addresses and contents of page tables depend on the order in which memory is allocated.",
        r"^(<6>PGD ).*$",
        r"\1...",
    ),
)


def normalised(text: str, count: Counter[str]) -> str:
    """Return ``text`` after all normalisations, and count how often each reason applied."""
    for each in NORMALISATIONS:
        text, times = re.subn(each.pattern, each.replacement, text, flags=re.MULTILINE)
        count[each.reason] += times
    return text
