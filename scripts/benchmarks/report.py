# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures for people, for programs, and for later."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Figure

WIDTH = 120
"""Columns, where there is no terminal to ask."""


def machine() -> str:
    """The computer, in a line."""
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
    """Everything, as plain data."""
    lines = [
        {
            **dataclasses.asdict(figure),
            "reach": str(figure.reach) if figure.reach else None,
            "ratio": figure.ratio,
            "reached": figure.reached,
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
    """The file that every full run is added to, a line of JSON each."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state, "klpfs/benchmarks.jsonl")


def remember(figures: Iterable[Figure]) -> None:
    """Add a run to the history."""
    history().parent.mkdir(parents=True, exist_ok=True)
    with history().open("a") as file:
        file.write(json.dumps(as_json(figures)) + "\n")


def show(figures: Iterable[Figure]) -> None:
    """The table."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(title=f"{machine()}, load {os.getloadavg()[0]:.1f}")
    notes: dict[str, int] = {}
    for title in ("row", "ours", "reference", "ratio", "reach", "reached"):
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
            str(figure.reach or ""),
            {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.reached],
        )
    console.print(table)
    for note, i in notes.items():
        console.print(f"[{i}] {note}", markup=False)


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Says on standard error which row is being measured."""
    if quiet:
        yield lambda name: None
        return
    with Console(stderr=True).status("") as status:
        yield lambda name: status.update(name)
