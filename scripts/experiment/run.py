# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine on which a patch is enabled and disabled under tasks that call its functions, in
virtual time."""

from __future__ import annotations

import errno
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from experiment.table import KINDS, LOADS, Row
from klpfs.machine.image import embedded
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.livepatch.consistency import Model
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.modules import kbuild

HERE = Path(__file__).resolve().parent
GRACE_SECONDS = 0.008
"""Guest seconds between two functions, or tasks, that change one after the other.

A grace period takes time on a real machine. Here there is nothing to wait for, and it takes two
ticks.
"""
LIMIT_SECONDS = {"short": 120.0, "long": 60.0, "never": 22.0}
"""Guest seconds after which a transition has stalled, by load."""
DWELL_SECONDS = {"short": 0.2, "long": 4.0, "never": 0.2}
"""Guest seconds between the end of a transition and the next one, by load."""
ATTEMPTS = {"short": 6, "long": 4, "never": 0.4}
"""How often in each round a transition that gives up is tried again, by load."""
STEP = 0.05
"""Guest seconds that pass between two looks at a transition."""
SLICE_INSTRUCTIONS = 20_000
STEPPED = 3
"""The load of units.c in which a pause lasts until the task is woken."""


@functools.cache
def built() -> tuple[bytes, bytes]:
    """Return the module and its patch."""
    with tempfile.TemporaryDirectory() as directory:
        sources = [HERE / "units.c", HERE / "units_patch.c"]
        module, patch = kbuild.build(sources, Path(directory))
        return module.read_bytes(), patch.read_bytes()


Step = Callable[[], Awaitable[int]]
"""An action of the driver, which returns its errno."""


class Change(NamedTuple):
    """The versions that tasks run from a certain time on."""

    time: float
    """Guest seconds."""
    tasks: dict[str, bool]
    """Whether a task runs the new version, by its name."""
    functions: tuple[str, ...]
    """The new functions, where functions change one by one."""


class Subject:
    """The machine, and the actions of the driver on it."""

    def __init__(self, kernel: Kernel, clock: VirtualClock, nursery: trio.Nursery) -> None:
        self.kernel, self.clock, self.nursery = kernel, clock, nursery
        self._pid = 100
        self.last_change = 0
        """When a task or a function changed last, in guest nanoseconds."""
        kernel.livepatch.universes.on_change.append(self._changed)
        self._by_name = {name: i for i, name in enumerate(("units", "units_patch"))}

    def _changed(self) -> None:
        self.last_change = self.clock.now()

    async def as_process(self, step: Callable[[], Awaitable[None]]) -> int:
        """Run ``step`` as a process of its own, and return its errno."""
        self._pid += 1
        try:
            async with self.kernel.fork.user_task(self._pid, "driver"):
                await step()
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    async def insmod(self, name: str, arguments: str = "") -> int:
        module = built()[self._by_name[name]]
        return await self.as_process(lambda: self.kernel.modules.init_module(module, arguments))

    async def rmmod(self, name: str) -> int:
        return await self.as_process(lambda: self.kernel.modules.delete_module(name))

    async def write_enabled(self, value: int) -> int:
        directory = self.kernel.kobjects.at(("kernel", "livepatch", "units_patch"))
        [attribute] = [file for file in directory.attributes if file.name == "enabled"]
        assert attribute.store is not None
        store, data = attribute.store, str(value).encode()
        return await self.as_process(lambda: store(data))

    def start(self, step: Step) -> list[int]:
        """Start a step in the background. Its errno is added to the list when it has ended."""
        done: list[int] = []

        async def run() -> None:
            done.append(await step())

        self.nursery.start_soon(run)
        return done

    async def complete(self, step: Step, limit: float) -> int:
        """Do a step while time passes, and wait for the end of the transition.

        Returns 0, the errno of the step, or ETIMEDOUT after ``limit`` guest seconds.
        """
        done, end = self.start(step), self.clock.now() + limit * 1e9
        while not done or self.kernel.livepatch.universes.patch is not None:
            if done and done[0]:
                return done[0]
            if self.clock.now() > end:
                return errno.ETIMEDOUT
            await self.clock.advance(STEP)
        return done[0]

    def variable(self, name: str) -> int:
        address = self.kernel.symbols.lookup(name, "units")
        assert address is not None, name
        return self.kernel.computer.space.read_u64(address)

    def set(self, name: str, value: int, size: int) -> None:
        address = self.kernel.symbols.lookup(name, "units")
        assert address is not None, name
        self.kernel.computer.memory.write(address, value.to_bytes(size, "little"))

    def forward(self, on: bool) -> None:
        """Tell the module that the patch is about to be enabled, or disabled."""
        self.set("first_new", 0, 8)
        self.set("forward", on, 1)

    def workers(self) -> list[Task]:
        """Return the tasks of the module, in the order of their numbers."""
        return [task for task in self.kernel.sched if task.comm.startswith("units/")]

    def side(self) -> Change:
        """Return which version each task runs now."""
        universes = self.kernel.livepatch.universes
        patch = universes.patch
        states = {t.comm: bool(t.struct.patch_state == 1) for t in self.workers()}
        if patch is None:
            on = any(patch.enabled for patch in self.kernel.livepatch.patches)
            return Change(self.clock.now() / 1e9, dict.fromkeys(states, on), ())
        new = tuple(f.old_name.string() for f in universes.functions() if not f.transition)
        return Change(self.clock.now() / 1e9, states, new)


@asynccontextmanager
async def machine(model: Model, seed: int) -> AsyncIterator[Subject]:
    """Boot a kernel whose default model is ``model``; switch it off at the end."""
    clock = VirtualClock(seed)
    kernel = Kernel(
        embedded.load(), clock, memory_size=64 << 20, slice_instructions=SLICE_INSTRUCTIONS
    )
    try:
        async with trio.open_nursery() as nursery:
            await kernel.boot(nursery)
            kernel.livepatch.consistency.default = model
            yield Subject(kernel, clock, nursery)
            nursery.cancel_scope.cancel()
    finally:
        kernel.close()


async def grace_period(kernel: Kernel) -> None:
    """Wait for a grace period."""
    task = kernel.sched.current
    task.state = TaskState.UNINTERRUPTIBLE
    await task.wait(GRACE_SECONDS)


async def measure(
    model: Model, kind: str, load: str, *, seed: int, rounds: int, tasks: int = 4
) -> tuple[Row, list[Change]]:
    """Enable and disable the patch ``rounds`` times under ``tasks`` tasks.

    Returns the row, and the changes of the first round.
    """
    row, changes = Row(model.name, kind, load), []
    async with machine(model, seed) as subject:
        kernel = subject.kernel
        kernel.livepatch.switches.pause = functools.partial(grace_period, kernel)
        options = f"kind={KINDS.index(kind)} load={LOADS.index(load)} tasks={tasks} seed={seed * 7919 + 1}"
        await subject.insmod("units", options)
        await subject.clock.advance(0.5)

        def show() -> None:
            changes.append(subject.side())

        kernel.livepatch.universes.on_change.append(show)
        attempts = round(rounds * ATTEMPTS[load])
        while row.finished < 2 * rounds and row.gave_up <= attempts and not row.stalled:
            await _one_round(subject, row)
            if row.finished and show in kernel.livepatch.universes.on_change:
                kernel.livepatch.universes.on_change.remove(
                    show
                )  # one round is enough for a picture
        row.calls, row.torn, row.stale = map(subject.variable, ("calls", "torn", "stale"))
        row.stop, row.stops = kernel.freezer.longest / 1e6, kernel.livepatch.switches.stops.count
        row.host_us = kernel.livepatch.switches.stops.longest / 1e3
    return row, changes


async def _one_round(subject: Subject, row: Row) -> None:
    """Enable and disable the patch, and count the results in ``row``."""
    dwell = DWELL_SECONDS[row.load]
    subject.forward(True)
    if not await _timed(subject, row, lambda: subject.insmod("units_patch")):
        await subject.clock.advance(dwell)
        subject.forward(False)
        while (
            result := await _timed(subject, row, lambda: subject.write_enabled(0))
        ) == errno.EBUSY:
            await subject.clock.advance(dwell)
        if not result:
            await subject.rmmod("units_patch")
    await subject.clock.advance(dwell)


async def _timed(subject: Subject, row: Row, step: Step) -> int:
    """Do a step, count its result in ``row``, and return its errno."""
    began = subject.clock.now()
    result = await subject.complete(step, LIMIT_SECONDS[row.load])
    if result == 0:
        row.finished += 1
        row.seconds = max(row.seconds or 0.0, (subject.last_change - began) / 1e9)
    elif result == errno.EBUSY:
        row.gave_up += 1
    else:
        row.stalled += 1
    return result
