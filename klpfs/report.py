# SPDX-License-Identifier: GPL-2.0-or-later
"""What `klpfs.check` found, for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klpfs.check import Report, Verdict

_STYLES = {Verdict.GOOD: "green", Verdict.BAD: "red", Verdict.UNKNOWN: "yellow", Verdict.NOTE: "dim"}


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
