# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row of the benchmark is, and how two things are measured beside each other."""

from __future__ import annotations

import importlib
import inspect
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

MODULES = ("guest", "files", "growth", "booted", "footprint")
"""Where the rows are, in the order of the table."""

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
"""Kernel modules, and reference programs in C and Python."""


class Missing(Exception):
    """A row cannot be measured here; the message says what is not there."""


@dataclass(frozen=True)
class Reach:
    """What a row should reach."""

    limit: float
    of: str = "ratio"
    """"ratio", or "ours" where the figure itself is bounded."""

    def __str__(self) -> str:
        return f"ratio at most {self.limit:g}" if self.of == "ratio" else f"at most {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """A line of the table."""

    name: str
    unit: str = ""
    ours: float | None = None
    reference: float | None = None
    against: str = ""
    """What the reference is."""
    reach: Reach | None = None
    note: str = ""
    paired: float | None = None
    """The median of the ratios of neighbouring measurements, where there are several."""

    @property
    def ratio(self) -> float | None:
        """Ours by the reference: less is better."""
        if self.paired is not None:
            return self.paired
        return self.ours / self.reference if self.ours is not None and self.reference else None

    @property
    def reached(self) -> bool | None:
        """None where nothing was asked for, or where it could not be measured."""
        value = self.ratio if self.reach and self.reach.of == "ratio" else self.ours
        return value <= self.reach.limit if self.reach and value is not None else None


@dataclass(frozen=True)
class Row:
    name: str
    run: Callable[[Bench], Iterable[Figure]]

    def measure(self, bench: Bench) -> list[Figure]:
        """Its figures; one without numbers, and the reason, where it cannot be measured."""
        figures = []
        try:
            figures += self.run(bench)
        except Missing as missing:
            figures.append(Figure(self.name, note=str(missing)))
        return figures


_rows: dict[str, Row] = {}


def row(
    name: str,
) -> Callable[[Callable[[Bench], Iterable[Figure]]], Callable[[Bench], Iterable[Figure]]]:
    """Make a function a row of the benchmark."""

    def add(function: Callable[[Bench], Iterable[Figure]]) -> Callable[[Bench], Iterable[Figure]]:
        _rows[name] = Row(name, function)
        return function

    return add


def _all() -> dict[str, Row]:
    for module in MODULES:
        importlib.import_module(f"benchmarks.{module}")
    return _rows


def names() -> list[str]:
    return list(_all())


def choose(beginnings: Iterable[str] | None) -> list[Row]:
    """The rows whose names begin with one of these. Raises LookupError."""
    rows = _all()
    if beginnings is None:
        return list(rows.values())
    chosen: dict[str, Row] = {}
    for beginning in beginnings:
        found = {name: each for name, each in rows.items() if name.startswith(beginning)}
        if not found:
            raise LookupError(f"no row begins with {beginning}; --list")
        chosen |= found
    return list(chosen.values())


class Bench:
    """One run of the benchmark: how much is measured, and what several rows need. A context manager."""

    def __init__(self, *, quick: bool, repetitions: int) -> None:
        self.quick = quick
        self.repetitions = 1 if quick else repetitions
        self.at_end = ExitStack()
        """What is undone when the run is over."""

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.at_end.close()

    def size(self, full: int, quick: int) -> int:
        """How many of something: the second with --quick."""
        return quick if self.quick else full

    @cached_property
    def work(self) -> Path:
        """A directory for this run."""
        return Path(self.at_end.enter_context(tempfile.TemporaryDirectory(prefix="klpfs-bench-")))

    @cached_property
    def modules(self) -> Path:
        """Those of `SOURCES`, built for the embedded kernel."""
        from klpfs.modules import kbuild

        directory = self.work / "modules"
        directory.mkdir()
        for source in sorted(SOURCES.glob("bench_*.c")):
            kbuild.build([source], directory)
        return directory

    def build_fresh(self, name: str, text: str) -> Path:
        """A module from a source that is made up."""
        from klpfs.modules import kbuild

        source = self.work / f"{name}.c"
        source.write_text(text)
        return kbuild.build([source], self.work)[0]

    def take_turns(self, *functions: Callable[[], float]) -> list[list[float]]:
        """What each of the functions gives, several times, one after the other."""
        turns = [[function() for function in functions] for _ in range(self.repetitions)]
        return [list(column) for column in zip(*turns, strict=True)]


def needs(program: str) -> None:
    """Raises `Missing` if there is no such program."""
    if not shutil.which(program):
        raise Missing(f"there is no {program}")


def compare(
    name: str,
    unit: str,
    ours: list[float],
    references: dict[str, tuple[list[float], Reach | None]],
    note: str = "",
) -> Iterator[Figure]:
    """A figure for each reference, from measurements that were made in turns."""
    middle = statistics.median(ours)
    for against, (theirs, reach) in references.items():
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        yield Figure(name, unit, middle, statistics.median(theirs), against, reach, note, ratio)


def in_trio(function: Callable[..., Any], *arguments: object) -> Any:
    """Run an async function, or an async generator to a list of what it gives."""
    import trio

    async def collect() -> list[Any]:
        return [item async for item in function(*arguments)]

    return (
        trio.run(collect)
        if inspect.isasyncgenfunction(function)
        else trio.run(function, *arguments)
    )
