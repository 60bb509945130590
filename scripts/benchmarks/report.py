# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures as a table, as JSON, and as a line of the history."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Figure

WIDTH = 120
"""The columns of the table if standard output is no terminal."""


def machine() -> str:
    """Return a line about the computer."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{os.cpu_count()} processors ({model}), Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def as_json(figures: Iterable[Figure]) -> dict[str, object]:
    """Return the figures, and what they depend on, as plain data."""
    lines = [
        {
            **dataclasses.asdict(figure),
            "target": str(figure.target) if figure.target else None,
            "ratio": figure.ratio,
            "met": figure.met,
        }
        for figure in figures
    ]
    for line in lines:
        del line["paired"]
    return {
        "machine": machine(),
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _commit(),
        "figures": lines,
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def history() -> Path:
    """Return the path of the history: a line of JSON for each full run."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state, "klpfs/benchmarks.jsonl")


def remember(figures: Iterable[Figure]) -> None:
    """Add a run to the history."""
    history().parent.mkdir(parents=True, exist_ok=True)
    with history().open("a") as file:
        file.write(json.dumps(as_json(figures)) + "\n")


def show(figures: Iterable[Figure]) -> None:
    """Print the table."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(title=f"{machine()}, load {os.getloadavg()[0]:.1f}")
    notes: dict[str, int] = {}
    for title in ("row", "ours", "reference", "ratio", "target", "met"):
        table.add_column(title, justify="right" if title in ("ours", "ratio") else "left")
    for figure in figures:
        reference = figure.against
        if figure.reference is not None:
            reference = f"{number(figure.reference)} {figure.unit} {figure.against}".strip()
        mark = f" [{notes.setdefault(figure.note, len(notes) + 1)}]" if figure.note else ""
        table.add_row(
            figure.name + mark,
            f"{number(figure.ours)} {figure.unit}",
            reference,
            number(figure.ratio),
            str(figure.target or ""),
            {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.met],
        )
    console.print(table)
    for note, i in notes.items():
        console.print(f"[{i}] {note}", markup=False)


def number(value: float | None) -> str:
    """Return a number with three significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
