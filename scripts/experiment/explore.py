# SPDX-License-Identifier: GPL-2.0-or-later
"""Every interleaving of two tasks and one patch, on the machine itself.

Task 0 and task 1 each do one job of units.c, in four moves. Between two moves a task waits at a
call or a return, in the middle of a patched function or between two of them. The patch P has two
moves. The first enables it. In the second one second passes; or the next function or task changes,
where these change one by one. A schedule is a word of moves, such as ``0P00``. If it has torn
nothing by then, both tasks and the patch run to the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import trio

from experiment.run import STEPPED, Change, Subject, machine
from experiment.table import KINDS
from klpfs.machine.kernel.livepatch.consistency import Model
from klpfs.machine.kernel.sched.core import Task

MOVES = {"0": 4, "1": 4, "P": 2}
"""The number of moves of each."""


@dataclass
class Exploration:
    """The result of one model and kind."""

    model: str
    kind: str
    schedule: str | None
    """The shortest schedule that tears; None if none does."""
    tried: int
    """The number of schedules that were tried."""


def words(length: int, *, alike: bool = False, left: dict[str, int] | None = None) -> Iterator[str]:
    """Yield all schedules with ``length`` moves.

    If the tasks are ``alike``, only one of two schedules that differ in the names of the tasks.
    ``left``: the moves that are left of each; all of `MOVES` by default.
    """
    left = dict(MOVES) if left is None else left
    if length == 0:
        yield ""
        return
    for mover in "01P":
        if left[mover] and not (alike and mover == "1" and left["0"] == MOVES["0"]):
            left[mover] -= 1
            for rest in words(length - 1, alike=alike, left=left):
                yield mover + rest
            left[mover] += 1


class Explorer:
    """Runs schedules on one machine, one after the other."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._paused: trio.Event | None = None
        self._side: Change | None = None
        subject.kernel.livepatch.switches.pause = self._pause

    async def _pause(self) -> None:
        """Wait until the patch moves again, between two functions or tasks that change.

        Return at once if the last change made no difference to the two tasks.
        """
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
        """Return whether the schedule tears something. The machine is as before afterwards."""
        subject = self._subject
        torn = subject.variable("torn")
        subject.forward(True)
        tasks, moves, done = self._workers(), dict.fromkeys(MOVES, 0), [0]
        for mover in word:
            if mover == "P":
                if not moves["P"]:
                    done = subject.start(lambda: subject.insmod("units_patch"))
                elif self._paused is not None:
                    self._paused.set()
                else:
                    await subject.clock.advance(1)
            else:
                tasks[int(mover)].wake()
            moves[mover] += 1
            await self._settle()
        found = subject.variable("torn") != torn
        await self._tidy_up(tasks, done)
        return found

    async def _tidy_up(self, tasks: list[Task], done: list[int]) -> None:
        """Run both tasks and the transition to the end, and remove the patch."""
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
    """Try schedules, the shorter ones first, until one tears."""
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
