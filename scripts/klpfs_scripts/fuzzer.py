# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the targets of tests/fuzzing.py for long.

Each target has a process of its own. If this dies, hangs or grows too much, that is a fault, as is
an exception that the target does not expect.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import fuzzing
import trio

from klpfs.modules import kbuild
from klpfs.terminal import LINES, printable
from klpfs_scripts.command import say
from klpfs_scripts.environment import ROOT
from klpfs_scripts.progress import Progress

HANG_SECONDS = 60
"""The time after which an input hangs."""
GROWTH = 1 << 30
"""The bytes of memory by which a process may grow before a new one takes its place; by half of them
for one input."""


@dataclass(frozen=True)
class Fault:
    """An input that showed a fault."""

    kind: str
    """The end of the report. Of several inputs with the same end, only the first is kept."""
    input: str
    """The file with the input."""
    report: str


@dataclass
class Result:
    """The result of one target."""

    target: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    def text(self) -> str:
        """Return the result as text, with the reports of the faults."""
        lines = [
            f"{self.target:12} {self.inputs} inputs, {self.accepted} accepted, "
            f"{len(self.faults)} faults, {self.seconds:.0f} s"
        ]
        lines += [printable(f"{fault.input}\n{fault.report}", LINES) for fault in self.faults]
        return "\n".join(lines)


def build_modules(directory: Path) -> Path:
    """Build the modules of the tests and the samples, each into a directory of its own in ``directory``,
    and return this."""
    say("building the modules of the tests and the samples")
    for source in sorted([*ROOT.glob("tests/modules/*.c"), *ROOT.glob("modules/samples/*.c")]):
        output = directory / source.stem
        output.mkdir()
        try:
            kbuild.build([source], output)
        except Exception:
            say(f"{source.name} is left out: it does not build alone")
    return directory


def try_file(name: str, file: Path) -> str:
    """Try one input, and return whether it was accepted or refused. Raises if it shows a fault."""

    async def main() -> bool:
        target = fuzzing.TARGETS[name]()
        async with target.open():
            return await target.try_one(file.read_bytes())

    return "accepted" if trio.run(main) else "refused"


def fuzz_all(
    names: Sequence[str], corpus: Sequence[bytes], seed: int, seconds: float, keep: Path
) -> list[Result]:
    """Run the targets one after the other, in ``seconds`` altogether.

    ``corpus``: the modules that inputs are made of. ``keep``: the directory for inputs that show a
    fault.
    """
    results = []
    end = time.monotonic() + seconds
    with Progress(len(names)) as progress:
        for number, name in enumerate(names, 1):
            share = (end - time.monotonic()) / (len(names) - number + 1)
            result = Result(name, seed)

            def show(result: Result = result, number: int = number) -> None:
                faults = len(result.faults)
                progress.step(f"{result.target}, {result.inputs} inputs, {faults} faults", number)

            fuzz(result, corpus, share, keep, show)
            results.append(result)
    return results


def fuzz(
    result: Result,
    corpus: Sequence[bytes],
    seconds: float,
    keep: Path,
    show: Callable[[], None],
) -> None:
    """Run a target for ``seconds``, with a new process after each that dies. ``show`` is called
    after each input."""
    show()
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    while (left := seconds - (time.monotonic() - start)) > 0:
        ours, theirs = context.Pipe(duplex=False)
        current = keep / f"{result.target}.current"
        seed = result.seed + result.inputs
        process = context.Process(
            target=try_inputs, args=(result.target, corpus, seed, left, current, theirs)
        )
        process.start()
        theirs.close()
        try:
            while True:
                accepted, problem = ours.recv()
                result.inputs += 1
                result.accepted += accepted
                if problem:
                    note(result, current.with_suffix(".fault"), keep, problem)
                show()
        except EOFError:
            process.join()
        if process.exitcode:
            result.inputs += 1
            note(result, current, keep, f"the process ended with {process.exitcode}")
        current.unlink(missing_ok=True)
        current.with_suffix(".fault").unlink(missing_ok=True)
    result.seconds = round(time.monotonic() - start, 1)


def note(result: Result, current: Path, keep: Path, problem: str) -> None:
    """Add a fault and keep its input, unless the same fault is known."""
    lines = problem.strip().splitlines()
    kind = lines[-1] + "".join(lines[-3:-1])
    if kind in (fault.kind for fault in result.faults):
        return
    file = keep / f"{result.target}-{len(result.faults)}"
    if current.exists():
        file.write_bytes(current.read_bytes())
    result.faults.append(Fault(kind, str(file), problem))


# In the process of a target


def try_inputs(
    name: str, corpus: Sequence[bytes], seed: int, seconds: float, current: Path, tell: Connection
) -> None:
    """Try inputs for ``seconds``. Each is written to ``current`` before it is tried."""
    faulthandler.enable()
    target = fuzzing.TARGETS[name]()
    mutator = fuzzing.Mutator(target.corpus(corpus), target.regions, seed)
    end = time.monotonic() + seconds

    async def main() -> None:
        async with target.open():
            first = resident()
            # Every kernel leaves some memory behind: a mount never has more than one.
            while time.monotonic() < end and resident() - first < GROWTH:
                before = resident()
                data = mutator.next()
                current.write_bytes(data)
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
                accepted, problem = False, ""
                try:
                    accepted = await target.try_one(data)
                except Exception:
                    problem = traceback.format_exc()
                faulthandler.cancel_dump_traceback_later()
                if resident() - before > GROWTH // 2 and not problem:
                    problem = f"the process has grown by {(resident() - before) >> 20} MiB"
                if problem:
                    current.with_suffix(".fault").write_bytes(data)
                tell.send((accepted, problem))
                if problem and isinstance(target, fuzzing.InKernel):
                    await target.new_kernel()

    trio.run(main)


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
