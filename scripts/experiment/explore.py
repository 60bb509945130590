# SPDX-License-Identifier: GPL-2.0-or-later
"""Every interleaving of two tasks and one patch, on the machine itself.

Task 0 and task 1 each do one job of units.c, in four moves: between them they stand at calls and returns, in
the middle of a patched function or between two. The patch P has two moves: it is enabled; then a second
passes, or, where functions or tasks change one by one, the next of them does. A schedule is a word of these
moves, such as ``0P00``; when it has torn nothing, everybody is let run to the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import trio
from run import STEPPED, Change, Subject, machine
from table import KINDS

from klpfs.machine.kernel.livepatch.consistency import Model
from klpfs.machine.kernel.sched.core import Task

MOVES = {"0": 4, "1": 4, "P": 2}
"""How many moves each has."""


@dataclass
class Exploration:
    """What came of one model and kind: the shortest schedule that tears (None: none does), and how many
    were tried."""

    model: str
    kind: str
    schedule: str | None
    tried: int


def words(length: int, *, alike: bool = False, left: dict[str, int] | None = None) -> Iterator[str]:
    """All schedules of so many moves. Of two that differ in the names of the tasks only, one will do if the
    tasks are ``alike``."""
    left = dict(MOVES) if left is None else left
    if length == 0:
        yield ""
        return
    for who in "01P":
        if left[who] and not (alike and who == "1" and left["0"] == MOVES["0"]):
            left[who] -= 1
            for rest in words(length - 1, alike=alike, left=left):
                yield who + rest
            left[who] += 1


class Explorer:
    """Runs schedules on one machine, one after the other."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._paused: trio.Event | None = None
        self._side: Change | None = None
        subject.kernel.livepatch.switches.pause = self._pause

    async def _pause(self) -> None:
        """Between two functions, or tasks: until the patch moves again, if that makes a difference for the
        two tasks."""
        side = self._subject.side()
        if side == self._side:
            return
        self._side = side
        self._paused = trio.Event()
        await self._paused.wait()
        self._paused = None

    async def _settle(self) -> None:
        await self._subject.clock.advance(0)

    def _workers(self) -> list[Task]:
        return self._subject.workers()

    async def run(self, word: str) -> bool:
        """Whether the schedule tears. The machine is as before then."""
        subject = self._subject
        torn = subject.variable("torn")
        subject.forward(True)
        tasks, moves, done = self._workers(), dict.fromkeys(MOVES, 0), [0]
        for who in word:
            if who == "P":
                if not moves["P"]:
                    done = subject.start(lambda: subject.insmod("units_patch"))
                elif self._paused is not None:
                    self._paused.set()
                else:
                    await subject.clock.advance(1)
            else:
                tasks[int(who)].wake()
            moves[who] += 1
            await self._settle()
        found = subject.variable("torn") != torn
        await self._tidy_up(tasks, done)
        return found

    async def _tidy_up(self, tasks: list[Task], done: list[int]) -> None:
        """Let everybody come to the end, and take the patch off."""
        subject = self._subject
        subject.forward(False)
        await self._finish(tasks, done)
        if subject.kernel.modules.find("units_patch") is not None:
            await self._finish(tasks, subject.start(lambda: subject.write_enabled(0)))
            assert await subject.rmmod("units_patch") == 0

    async def _finish(self, tasks: list[Task], done: list[int]) -> None:
        kernel = self._subject.kernel
        while True:
            moving = [task for task in tasks if not kernel.freezer.is_out(task)]
            for task in moving:
                task.wake()
            if self._paused is not None:
                self._paused.set()
            elif not moving:
                if done and kernel.livepatch.universes.patch is None:
                    return
                await self._subject.clock.advance(1)
            await self._settle()


async def explore(model: Model, kind: str, *, seed: int = 1) -> Exploration:
    """Try schedules, shorter ones first, until one tears."""
    result = Exploration(model.name, kind, None, 0)
    async with machine(model, seed) as subject:
        options = f"kind={KINDS.index(kind)} load={STEPPED} tasks=2 seed={seed}"
        await subject.insmod("units", options)
        await subject.clock.advance(0)
        explorer = Explorer(subject)
        for length in (*range(2, 8), sum(MOVES.values())):
            for word in words(length, alike=kind != "across"):
                if "P" not in word:
                    continue
                result.tried += 1
                if await explorer.run(word):
                    result.schedule = word
                    return result
    return result
