# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows and figures of the benchmark, and the measurement of two programs in turns."""

from __future__ import annotations

import importlib
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ParamSpec, TypeVar

MODULES = ("guest", "files", "growth", "booted", "footprint")
"""The modules of this package with the rows, in the order of the table."""

Item = TypeVar("Item")
Arguments = ParamSpec("Arguments")

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
"""Kernel modules, and reference programs in C and Python."""


class Missing(Exception):
    """A row cannot be measured here. The message says what is missing."""


@dataclass(frozen=True)
class Target:
    """The largest value that a figure should have."""

    limit: float
    of: str = "ratio"
    """The value that has the limit: "ratio", or "ours" for the figure itself."""

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
    """The name of the reference."""
    target: Target | None = None
    note: str = ""
    paired: float | None = None
    """The median of the ratios of neighbouring measurements, if there are several."""

    @property
    def ratio(self) -> float | None:
        """Our figure by the reference; less is better."""
        if self.paired is not None:
            return self.paired
        return self.ours / self.reference if self.ours is not None and self.reference else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target, or if it could not be measured."""
        value = self.ratio if self.target and self.target.of == "ratio" else self.ours
        return value <= self.target.limit if self.target and value is not None else None


@dataclass(frozen=True)
class Row:
    """A function that measures, and gives one figure or several."""

    name: str
    run: Callable[[Bench], Iterable[Figure]]

    def measure(self, bench: Bench) -> list[Figure]:
        """Return the figures. If the row cannot be measured, one of them has no numbers but the
        reason."""
        figures: list[Figure] = []
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
    """Return the names of the rows, in the order of the table."""
    return list(_all())


def choose(beginnings: Iterable[str] | None) -> list[Row]:
    """Return the rows whose names begin with one of ``beginnings``; all for None. Raises
    LookupError."""
    rows = _all()
    if beginnings is None:
        return list(rows.values())
    chosen: dict[str, Row] = {}
    for beginning in beginnings:
        found = {name: each for name, each in rows.items() if name.startswith(beginning)}
        if not found:
            raise LookupError(f"no row begins with {beginning}: --list prints their names")
        chosen |= found
    return list(chosen.values())


class Bench:
    """A run of the benchmark: how much it measures, and what several rows need. A context manager."""

    def __init__(self, *, quick: bool, repetitions: int) -> None:
        self.quick = quick
        self.repetitions = 1 if quick else repetitions
        self.at_end = ExitStack()
        """Undone at the end of the run."""

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.at_end.close()

    def size(self, full: int, quick: int) -> int:
        """Return ``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full

    @cached_property
    def work(self) -> Path:
        """A directory for this run."""
        return Path(self.at_end.enter_context(tempfile.TemporaryDirectory(prefix="klpfs-bench-")))

    @cached_property
    def modules(self) -> Path:
        """The directory with the modules of `SOURCES`, built for the embedded kernel."""
        from klpfs.modules import kbuild

        directory = self.work / "modules"
        directory.mkdir()
        for source in sorted(SOURCES.glob("bench_*.c")):
            kbuild.build([source], directory)
        return directory

    def build_fresh(self, name: str, text: str) -> Path:
        """Build a module from a source that a row has generated, and return its path."""
        from klpfs.modules import kbuild

        source = self.work / f"{name}.c"
        source.write_text(text)
        return kbuild.build([source], self.work)[0]

    def take_turns(self, *functions: Callable[[], float]) -> list[list[float]]:
        """Call the functions in turns, several times, and return the results of each."""
        turns = [[function() for function in functions] for _ in range(self.repetitions)]
        return [list(column) for column in zip(*turns, strict=True)]


def needs(program: str) -> None:
    """Raise `Missing` if there is no such program."""
    if not shutil.which(program):
        raise Missing(f"there is no {program}")


def compare(
    name: str,
    unit: str,
    ours: list[float],
    references: Mapping[str, tuple[list[float], Target | None]],
    note: str = "",
) -> Iterator[Figure]:
    """Yield a figure for each reference, from measurements that were made in turns."""
    middle = statistics.median(ours)
    for against, (theirs, target) in references.items():
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        yield Figure(name, unit, middle, statistics.median(theirs), against, target, note, ratio)


def in_trio(
    generator: Callable[Arguments, AsyncIterator[Item]],
    *arguments: Arguments.args,
    **keywords: Arguments.kwargs,
) -> list[Item]:
    """Run an async generator to its end, and return what it yields."""
    import trio

    async def collect() -> list[Item]:
        return [item async for item in generator(*arguments, **keywords)]

    return trio.run(collect)
