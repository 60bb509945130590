# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of `klpfs.checking.check`: as data, as JSON and as a table."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from klpfs.terminal import LINES, printable


class Verdict(enum.Enum):
    """The verdict on one finding, or on the whole patch."""

    GOOD = "good"
    BAD = "would fail"
    UNKNOWN = "could not tell"
    NOTE = "note"
    """Worth knowing, but without influence on the verdict on the patch."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    subject: str
    verdict: Verdict
    detail: str


@dataclass
class Call:
    """A call of a guest function, and its result and output before and after the patch is enabled."""

    text: str
    before: str = ""
    after: str = ""


@dataclass
class Report:
    """All findings, in the order in which the checks ran."""

    findings: list[Finding] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def add(self, subject: str, verdict: Verdict, detail: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(subject, verdict, detail))

    def as_dict(self) -> dict[str, object]:
        """Return the report as objects that JSON can express."""
        return {
            "verdict": self.verdict.value,
            "findings": [
                {"subject": f.subject, "verdict": f.verdict.value, "detail": f.detail}
                for f in self.findings
            ],
            "calls": [{"call": c.text, "before": c.before, "after": c.after} for c in self.calls],
        }

    @property
    def verdict(self) -> Verdict:
        """The verdict on the patch: BAD if any finding is BAD, else UNKNOWN if any is, else GOOD."""
        verdicts = {finding.verdict for finding in self.findings}
        for worst in (Verdict.BAD, Verdict.UNKNOWN):
            if worst in verdicts:
                return worst
        return Verdict.GOOD


_STYLES = {
    Verdict.GOOD: "green",
    Verdict.BAD: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.NOTE: "dim",
}


def print_table(report: Report) -> None:
    """Print the report for a person to read."""
    console = Console(highlight=False)
    table = Table("what", "verdict", "detail", box=box.SIMPLE)
    for finding in report.findings:
        style = _STYLES[finding.verdict]
        verdict = Text(finding.verdict.value, style)
        table.add_row(_cell(finding.subject), verdict, _cell(finding.detail))
    console.print(table)
    if report.calls:
        calls = Table("call", "before", "after", box=box.SIMPLE)
        for call in report.calls:
            calls.add_row(_cell(call.text), _cell(call.before), _cell(call.after))
        console.print(calls)
    console.print(Text(report.verdict.value, _STYLES[report.verdict]))


def _cell(text: str) -> Text:
    """Return guest text for a table. Nothing in it is markup or an emoji code."""
    return Text(printable(text, LINES))
