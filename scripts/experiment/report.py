# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of the experiment as tables."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from experiment.explore import Exploration
from experiment.table import KINDS, LOADS, Row, agrees
from klpfs.machine.kernel.livepatch.consistency import Model


def label(model: str) -> str:
    """Return a shorter name for a pair."""
    return model.replace("leave=", "").replace(",switch=", "/")


def print_rows(rows: list[Row], models: dict[str, Model], *, host_time: bool) -> None:
    """Print the table of `experiment.run.measure`; ``host_time`` adds the longest stop on the host."""
    table = Table(title="patch on and off under load, in guest time", title_justify="left")
    for name in ("model", "kind", "load"):
        table.add_column(name)
    for name in ("calls", "torn", "on or off", "gave up", "stalled", "time", "held", "stops"):
        table.add_column(name, justify="right")
    if host_time:
        table.add_column("longest stop, host", justify="right")
    for row in rows:
        torn = f"[red]{row.torn}[/]" if row.torn else "0"
        if not agrees(row, models[row.model]):
            torn += " [red bold]the definition says otherwise[/]"
        cells = [
            label(row.model), row.kind, row.load, str(row.calls), torn, str(row.finished),
            f"{row.gave_up or '-'}", "yes" if row.stalled else "-",
            "-" if row.seconds is None else f"{row.seconds:.2f} s",
            f"{row.stop:.1f} ms" if row.stop else "-", f"{row.stops or '-'}",
        ]  # fmt: skip
        table.add_row(*cells, *([f"{row.host_us:.0f} us"] if host_time else []))
        if row.load == LOADS[-1] and row.kind == KINDS[-1]:
            table.add_section()
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def print_explored(explored: list[Exploration]) -> None:
    """Print the table of `experiment.explore.explore`."""
    table = Table(title="two tasks, one patch, every interleaving", title_justify="left")
    for name in ("model", "kind", "shortest schedule that tears", "schedules tried"):
        table.add_column(name, justify="right" if name.endswith("tried") else "left")
    for found in explored:
        schedule = f"[red]{found.schedule}[/]" if found.schedule else "none"
        table.add_row(label(found.model), found.kind, schedule, str(found.tried))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
