# SPDX-License-Identifier: GPL-2.0-or-later
"""File operations, beside minimal FUSE programs that serve the same files."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.mounts import copy_of, minimal_libfuse, minimal_pyfuse3, mounted, reference
from benchmarks.rows import Bench, Figure, Target, compare, row
from klpfs.pytest_plugin import Machine

PATCH = "sys/kernel/livepatch/bench_patch"
SWITCH = "proc/sys/kernel/ftrace_enabled"
"""A file to which its own contents are written."""

PYFUSE3, LIBFUSE = "minimal pyfuse3", "minimal C libfuse"


def read(path: str) -> None:
    """Open, read and close a file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.read(descriptor, 4096)
    os.close(descriptor)


def write(path: str) -> None:
    """Open, write and close a file."""
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, b"1\n")
    os.close(descriptor)


def many(operation: Callable[[str], object], path: str, count: int) -> float:
    """Do an operation ``count`` times, and return the seconds that one takes."""
    start = time.perf_counter()
    for _ in range(count):
        operation(path)
    return (time.perf_counter() - start) / count


@contextmanager
def three(bench: Bench) -> Iterator[tuple[Path, Path, Path]]:
    """Mount klpfs with a patched module, and the two reference programs, and yield the mount
    points."""
    with mounted(bench) as machine:
        prepare(bench, machine)
        copy = copy_of(bench, machine)
        with (
            reference(bench, minimal_pyfuse3(), copy) as python,
            reference(bench, minimal_libfuse(bench), copy) as c,
        ):
            yield machine.mountpoint, python, c


def prepare(bench: Bench, machine: Machine) -> None:
    """Load the modules, and wait until the patch is on."""
    for name in ("bench_guest", "bench_target", "bench_patch"):
        machine.insmod(bench.modules / f"{name}.ko")
    machine.wait_until(lambda: machine.read(f"{PATCH}/transition") == "0\n")


def beside(name: str, unit: str, columns: list[list[float]]) -> Iterator[Figure]:
    """Yield the figures of measurements on the three mounts."""
    ours, python, c = columns
    references = {PYFUSE3: (python, Target(0.8)), LIBFUSE: (c, Target(1.5))}
    yield from compare(name, unit, ours, references)


@row("files")
def files(bench: Bench) -> Iterator[Figure]:
    """Operations of one process, one after the other."""
    count = bench.size(2000, 20)
    operations: dict[str, tuple[Callable[[str], object], str]] = {
        "open, read, close": (read, f"{PATCH}/enabled"),
        "open, write, close": (write, SWITCH),
        "readdir": (os.listdir, PATCH),
        "stat": (os.stat, f"{PATCH}/enabled"),
    }
    with three(bench) as mounts:
        for name, (operation, path) in operations.items():
            paths = [str(mount / path) for mount in mounts]
            for each in paths:  # afterwards the host knows the names
                many(operation, each, count // 10)
            columns = bench.take_turns(
                *(lambda p=p, o=operation: many(o, p, count) * 1e6 for p in paths)
            )
            yield from beside(name, "us", columns)


@row("walk")
def walk(bench: Bench) -> Iterator[Figure]:
    """All files, by find and grep."""
    commands = {
        "find, with stat": ["find", ".", "-printf", "%s %m %p\\n"],
        "grep -r": ["grep", "-r", "livepatch", "sys"],
    }
    with three(bench) as mounts:
        for name, command in commands.items():
            columns = bench.take_turns(
                *(lambda m=m, c=command: seconds(c, m) * 1e3 for m in mounts)
            )
            yield from beside(f"walk: {name}", "ms", columns)


def seconds(command: list[str], directory: Path) -> float:
    """Run a command in a mount, and return the seconds that it takes."""
    where = [str(directory / top) for top in ("sys", "proc")] if command[1] == "." else []
    if where:
        command = [command[0], *where, *command[2:]]
    start = time.perf_counter()
    subprocess.run(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return time.perf_counter() - start


@row("busy")
def busy(bench: Bench) -> Iterator[Figure]:
    """Reads while a guest task never gives up the processor.

    Each read follows a pause, and so begins at any time within the task's slice.
    """
    count = bench.size(2000, 50)
    spin = "sys/module/bench_guest/parameters/spin"
    with mounted(bench) as machine:
        prepare(bench, machine)
        path = str(machine.path(f"{PATCH}/enabled"))
        idle = latencies(path, count)
        machine.write(spin, "1")
        time.sleep(0.1)
        loaded = latencies(path, count)
        machine.write(spin, "0")
    for name, at, target in (("p50", 0.5, None), ("p99", 0.99, Target(2, of="ours"))):
        mine, theirs = (part[int(len(part) * at)] for part in (loaded, idle))
        yield Figure(f"open, read, close under load: {name}", "ms", mine, theirs, "idle", target)


def latencies(path: str, count: int) -> list[float]:
    """Return the milliseconds that each of ``count`` reads takes, sorted."""
    taken = []
    for _ in range(count):
        time.sleep(random.uniform(0, 0.003))
        taken.append(many(read, path, 1) * 1e3)
    return sorted(taken)
