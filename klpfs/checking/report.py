# SPDX-License-Identifier: GPL-2.0-or-later
"""What `klpfs.checking.check` found: as data, for JSON, and for people."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Verdict(enum.Enum):
    """Of one finding, and of the whole."""

    GOOD = "good"
    BAD = "would fail"
    UNKNOWN = "could not tell"
    NOTE = "note"
    """Worth knowing; it decides nothing."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    detail: str


@dataclass
class Call:
    """A call of a guest function, with the patch off and on: what it returned and printed."""

    text: str
    before: str = ""
    after: str = ""


@dataclass
class Report:
    """What was found, in the order in which it was looked for."""

    findings: list[Finding] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def add(self, subject: str, verdict: Verdict, detail: str) -> None:
        """One more finding."""
        self.findings.append(Finding(subject, verdict, detail))

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
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
        """Of all: BAD if one is, else UNKNOWN if one is, else GOOD."""
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


def as_table(report: Report) -> None:
    """Print it."""
    console = Console(highlight=False)
    table = Table("what", "verdict", "detail", box=box.SIMPLE)
    for finding in report.findings:
        style = _STYLES[finding.verdict]
        verdict = f"[{style}]{finding.verdict.value}[/]"
        table.add_row(escape(finding.subject), verdict, escape(finding.detail))
    console.print(table)
    if report.calls:
        calls = Table("call", "before", "after", box=box.SIMPLE)
        for call in report.calls:
            calls.add_row(escape(call.text), escape(call.before), escape(call.after))
        console.print(calls)
    console.print(f"[{_STYLES[report.verdict]}]{report.verdict.value}[/]")
