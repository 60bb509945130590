# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's clock: the time of the host, or virtual time that moves only when a caller advances it."""

from __future__ import annotations

import heapq
import itertools
import time

import trio

HZ = 250
"""Timer ticks per second, CONFIG_HZ."""
INITIAL_JIFFIES = (1 << 64) - 300 * HZ
"""Value of ``jiffies`` at boot: they wrap five minutes later (include/linux/jiffies.h)."""

BUSY_SLICES = 50
"""Number of slices that tasks get at one point of virtual time before time moves on."""


class Clock:
    """The host's monotonic clock, counted from boot."""

    virtual = False

    def __init__(self) -> None:
        self._boot = time.monotonic_ns()
        self.boot_time = time.time_ns()
        """Wall-clock time of the boot (nanoseconds since 1970)."""

    def now(self) -> int:
        """Return the nanoseconds since boot."""
        return time.monotonic_ns() - self._boot

    def ticks(self) -> int:
        """Return the ticks since boot: ``jiffies`` that start at 0."""
        return self.now() * HZ // 1_000_000_000

    def jiffies(self) -> int:
        """Return the value of the guest's ``jiffies_64``."""
        return (INITIAL_JIFFIES + self.ticks()) % (1 << 64)

    def seconds_until(self, ticks: int) -> float:
        """Return the seconds of guest time until `ticks` reaches ``ticks``; 0 if it has."""
        return max(0, ticks * 1_000_000_000 // HZ - self.now()) / 1e9

    def timeout(self, seconds: float) -> trio.CancelScope:
        """Return a scope that is cancelled after ``seconds`` of guest time."""
        return trio.CancelScope(deadline=trio.current_time() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of guest time. A checkpoint."""
        with self.timeout(seconds):
            await trio.sleep_forever()

    async def idle(self) -> None:
        """Wait for the next interrupt. The only one is the timer tick. A checkpoint."""
        await self.sleep(1 / HZ)

    async def give_way(self) -> None:
        """Let other tasks run at the end of a slice. A checkpoint."""
        # The first checkpoint lets the event loop collect all ready tasks and requests. It runs them
        # together with this task in arbitrary order; after the second, all of them have run.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    def slice_over(self) -> None:
        """Note the end of a slice of a task that can run again at once."""

    def begin(self) -> None:
        """Prepare the clock for a boot in the current run of trio."""


class VirtualClock(Clock):
    """Time that stands still until `advance`. Runs can be repeated: the order of tasks that become ready
    at the same time depends on ``seed`` only."""

    virtual = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.boot_time = 0  # the same in every run
        self._now = 0
        self._order = itertools.count()
        self._timeouts: list[tuple[int, int, trio.CancelScope]] = []
        self._settling: trio.CancelScope | None = None
        self._slices = 0

    def now(self) -> int:
        return self._now

    def timeout(self, seconds: float) -> trio.CancelScope:
        scope = trio.CancelScope()
        if seconds <= 0:
            self.slice_over()
            scope.cancel()
        else:
            deadline = self._now + round(seconds * 1e9)
            heapq.heappush(self._timeouts, (deadline, next(self._order), scope))
        return scope

    def begin(self) -> None:
        # Trio runs each batch of ready tasks in random order, so that no program relies on an order.
        # This private switch exists for Hypothesis: it sorts each batch and shuffles it with a generator
        # that can be seeded. Every task that stops waiting goes through such a batch.
        from trio._core import _run

        assert isinstance(_run._ALLOW_DETERMINISTIC_SCHEDULING, bool)
        _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        _run._r.seed(self.seed)

    async def give_way(self) -> None:
        await trio.lowlevel.checkpoint()

    async def idle(self) -> None:
        """Return at once: no timer tick comes while time stands still. A checkpoint."""
        self.slice_over()
        await trio.lowlevel.checkpoint()

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass. Tasks that can run now run first. Each timeout then expires in order, at
        its time, and the tasks that it wakes run, before this returns. Tasks that never wait get
        `BUSY_SLICES` at each of these points. A checkpoint."""
        await self._settle()
        end = self._now + round(seconds * 1e9)
        while self._timeouts and self._timeouts[0][0] <= end:
            deadline, _, scope = heapq.heappop(self._timeouts)
            self._now = max(self._now, deadline)
            if not scope.cancel_called:
                scope.cancel()
                await self._settle()
        self._now = end
        await self._settle()

    async def _settle(self) -> None:
        # This imports pytest where that is installed, which takes 50 ms: only virtual clocks need it.
        from trio.testing import wait_all_tasks_blocked

        self._slices = BUSY_SLICES
        with trio.CancelScope() as self._settling:
            await wait_all_tasks_blocked()
        self._settling = None

    def slice_over(self) -> None:
        self._slices -= 1
        if self._settling is not None and self._slices <= 0:
            self._settling.cancel()
