# SPDX-License-Identifier: GPL-2.0-or-later
"""The two sides of the comparison: each runs a story on a machine that nothing has run on before."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from klpfs_scripts.environment import klpfs
from klpfs_scripts.qemu import Qemu, QemuError

from comparison.stories import StoryFile

if TYPE_CHECKING:
    from klpfs_scripts.progress import Progress

STORY_SECONDS = 180
"""The time after which a story is given up."""


@dataclass(frozen=True)
class Run:
    """A story that has run."""

    output: str
    seconds: float
    """The time that it took, by the host's clock."""


class Side(Protocol):
    """A kernel that runs stories, one after the other."""

    def run(self, story: StoryFile) -> Run:
        """Run a story on a fresh machine. Raises `ScriptError` if no more stories can run."""


class QemuSide:
    """A kernel that QEMU has booted. Each story begins with the state that it has now."""

    def __init__(self, booted: Qemu) -> None:
        self._booted = booted
        booted.save()

    def run(self, story: StoryFile) -> Run:
        self._booted.restore()
        try:
            done = self._booted.run(story.script(), timeout=STORY_SECONDS)
        except QemuError as error:
            return Run(f"\n=== {story.name}\nQEMU: {error}\n", STORY_SECONDS)
        return Run(done.output, done.seconds)


class KlpfsSide:
    """A kernel of klpfs. Each story runs on a private machine of ``klpfs run``.

    ``python`` is the interpreter that has klpfs, ``machine`` the options that choose the kernel.
    """

    def __init__(self, python: str, machine: Sequence[str], modules: Path) -> None:
        run = [*klpfs(python), "run", *machine, "--modules", str(modules)]
        self._command = [*run, "--", "bash", "-c"]

    def run(self, story: StoryFile) -> Run:
        start = time.monotonic()
        try:
            done = subprocess.run(
                [*self._command, story.script()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=STORY_SECONDS,
            )
        except subprocess.TimeoutExpired:
            text = f"\n=== {story.name}\nklpfs run: no answer within {STORY_SECONDS} s\n"
            return Run(text, STORY_SECONDS)
        return Run(done.stdout.decode("utf-8", "replace"), time.monotonic() - start)


def run_all(
    stories: Sequence[StoryFile], sides: Mapping[str, Side], progress: Progress
) -> Iterator[dict[str, Run]]:
    """Run the stories on all sides at the same time. Yields the runs of each story, by side, in
    their order.

    Raises `ScriptError`.
    """
    steps = dict.fromkeys(sides, "")

    def run(side: str, number: int, story: StoryFile) -> Run:
        steps[side] = f"{side} {number} of {len(stories)} ({story.name})"
        progress.step("; ".join(filter(None, steps.values())))
        done = sides[side].run(story)
        if number == len(stories):
            steps[side] = f"{side} is done"
        return done

    with ExitStack() as stack:
        runs: dict[str, list[Future[Run]]] = {}
        for side in sides:
            thread = ThreadPoolExecutor(1)
            stack.callback(thread.shutdown, cancel_futures=True)
            runs[side] = [thread.submit(run, side, *each) for each in enumerate(stories, 1)]
        for i in range(len(stories)):
            yield {side: runs[side][i].result() for side in sides}
