# SPDX-License-Identifier: GPL-2.0-or-later
"""Tries broken inputs on everything that reads what others wrote (tests/fuzzing.py), target by target.

Each target has a process of its own: one that dies, hangs, or grows beyond its cap is a fault like an
exception that nobody expected. Inputs that show a fault are kept, and can be given again with ``--input``.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import fuzzing  # noqa: E402

from klpfs.modules import kbuild  # noqa: E402
from klpfs.terminal import LINES, printable  # noqa: E402

HANG_SECONDS = 60
CAP = 1 << 30
"""Bytes of memory that a process may have beyond what it starts with; one input may take half of them."""


@dataclass
class Result:
    """What became of one target."""

    target: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    faults: list[dict[str, str]] = field(default_factory=list)


def build(directory: Path) -> list[bytes]:
    """Modules to begin with: those of the tests."""
    for source in sorted((ROOT / "tests/modules").glob("*.c")):
        output = directory / source.stem
        output.mkdir()
        try:
            kbuild.build([source], output)
        except Exception as error:  # one that needs another is of no use alone
            click.echo(f"{source.name} is left out: {str(error).splitlines()[0]}", err=True)
    return fuzzing.modules_of(directory)


def resident() -> int:
    """The memory that this process has now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def work(
    name: str, corpus: Sequence[bytes], seed: int, seconds: float, current: Path, tell: Connection
) -> None:
    """Try inputs until the time is over; each is in ``current`` before it is tried."""
    faulthandler.enable()
    target = fuzzing.TARGETS[name]()
    mutator = fuzzing.Mutator(target.corpus(corpus), target.regions, seed)
    end = time.monotonic() + seconds

    async def main() -> None:
        async with target.open():
            first = resident()
            # Kernels leave something behind, as no mount has more than one: now and then all is new.
            while time.monotonic() < end and resident() - first < CAP:
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
                if resident() - before > CAP // 2 and not problem:
                    problem = f"it has grown by {(resident() - before) >> 20} MiB"
                if problem:
                    current.with_suffix(".fault").write_bytes(data)
                tell.send((accepted, problem))
                if problem and isinstance(target, fuzzing.InKernel):
                    await target.new_kernel()

    trio.run(main)


def fuzz(
    name: str, corpus: Sequence[bytes], seed: int, seconds: float, keep: Path, progress: Progress
) -> Result:
    """Run a target, again after each death."""
    result = Result(name, seed)
    shown = progress.add_task(name, total=seconds, what="")
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    while (left := seconds - (time.monotonic() - start)) > 0:
        ours, theirs = context.Pipe(duplex=False)
        current = keep / f"{name}.current"
        process = context.Process(
            target=work, args=(name, corpus, seed + result.inputs, left, current, theirs)
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
                what = f"{result.inputs} inputs, {len(result.faults)} faults"
                progress.update(shown, completed=time.monotonic() - start, what=what)
        except EOFError:
            process.join()
        if process.exitcode:
            result.inputs += 1
            note(result, current, keep, f"the process ended with {process.exitcode}")
        current.unlink(missing_ok=True)
        current.with_suffix(".fault").unlink(missing_ok=True)
    result.seconds = round(time.monotonic() - start, 1)
    return result


def note(result: Result, current: Path, keep: Path, problem: str) -> None:
    """Keep an input, unless the same fault is known."""
    kind = problem.strip().splitlines()[-1] + "".join(problem.strip().splitlines()[-3:-1])
    if kind in (fault["kind"] for fault in result.faults):
        return
    file = keep / f"{result.target}-{len(result.faults)}"
    if current.exists():
        file.write_bytes(current.read_bytes())
    result.faults.append({"kind": kind, "input": str(file), "report": problem})


def try_file(name: str, file: Path, corpus: Sequence[bytes]) -> None:
    """One input, with its traceback."""

    async def main() -> None:
        target = fuzzing.TARGETS[name]()
        async with target.open():
            click.echo("accepted" if await target.try_one(file.read_bytes()) else "refused")

    trio.run(main)


@click.command()
@click.argument("targets", nargs=-1, type=click.Choice(list(fuzzing.TARGETS)))
@click.option("--seconds", default=60.0, show_default=True, help="For each target.")
@click.option("--seed", default=0, show_default=True, help="Another one tries other inputs.")
@click.option(
    "--corpus", type=click.Path(exists=True, path_type=Path), help="Modules to begin with."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Where inputs with a fault go.")
@click.option(
    "--input", "file", type=click.Path(exists=True, path_type=Path), help="Try this one alone."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(
    targets: Sequence[str], seconds: float, seed: int, corpus: Path | None, keep: Path | None,
    file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Try broken inputs on TARGETS, or on all there are. Fails if one showed a fault."""
    keep = keep or Path(tempfile.mkdtemp(prefix="klpfs-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as built:
        inputs = fuzzing.modules_of(corpus) if corpus else build(Path(built))
    if file is not None:
        [name] = targets
        try_file(name, file, inputs)
        return
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as progress:
        results = [
            fuzz(name, inputs, seed, seconds, keep, progress) for name in targets or fuzzing.TARGETS
        ]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
    for result in results:
        for fault in result.faults:
            text = f"{result.target}: {fault['input']}\n{fault['report']}"
            console.print(printable(text, LINES), markup=False, emoji=False)
    if any(result.faults for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
