# SPDX-License-Identifier: GPL-2.0-or-later
"""Time in the guest: the host's, or virtual time that moves only when it is told to."""

from __future__ import annotations

import heapq
import itertools
import time

import trio

HZ = 250
"""Ticks of ``jiffies`` in a second, CONFIG_HZ."""
INITIAL_JIFFIES = (1 << 64) - 300 * HZ
"""jiffies wrap five minutes after boot, as include/linux/jiffies.h has it."""

BUSY_SLICES = 50
"""How often a task under virtual time may give the CPU away and get it back before time moves on."""


class Clock:
    """The host's monotonic clock, from boot on."""

    virtual = False

    def __init__(self) -> None:
        self._boot = time.monotonic_ns()
        self.boot_time = time.time_ns()
        """The date of the boot in nanoseconds since 1970."""

    def now(self) -> int:
        """Nanoseconds since boot."""
        return time.monotonic_ns() - self._boot

    def ticks(self) -> int:
        """Ticks since boot: ``jiffies`` that begin at 0."""
        return self.now() * HZ // 1_000_000_000

    def jiffies(self) -> int:
        """The value of the guest's ``jiffies_64``."""
        return (INITIAL_JIFFIES + self.ticks()) % (1 << 64)

    def seconds_until(self, ticks: int) -> float:
        """Seconds of guest time until `ticks` reaches ``ticks``; 0 if it has."""
        return max(0, ticks * 1_000_000_000 // HZ - self.now()) / 1e9

    def timeout(self, seconds: float) -> trio.CancelScope:
        """A scope that is cancelled after ``seconds`` of guest time."""
        return trio.CancelScope(deadline=trio.current_time() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of guest time. A checkpoint."""
        with self.timeout(seconds):
            await trio.sleep_forever()

    async def idle(self) -> None:
        """Wait for the next interrupt, of which the timer's tick is the only one. A checkpoint."""
        await self.sleep(1 / HZ)

    async def give_way(self) -> None:
        """Others run before the task whose slice is over. A checkpoint."""
        # Once so that the event loop finds out who is ready, requests from outside among them, and once
        # more since it runs those together with this task in an order of its own.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    def slice_over(self) -> None:
        """A task gave the processor away and could run on at once."""

    def begin(self) -> None:
        """The machine boots, in this run of trio."""


class VirtualClock(Clock):
    """Time that stands still until `advance`. What happens in it can be repeated: the ``seed`` decides in
    which order tasks run that become ready together, and nothing else does."""

    virtual = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.boot_time = 0  # a machine without a battery: every run the same
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
        # Trio runs a batch of ready tasks in an order of its own, at random, so that nobody relies on
        # one. This is the switch that it has for the tests of Hypothesis: batches are put in order and
        # shuffled by a generator that can be seeded. Every wait of a task ends in that queue.
        from trio._core import _run

        assert isinstance(_run._ALLOW_DETERMINISTIC_SCHEDULING, bool)
        _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        _run._r.seed(self.seed)

    async def give_way(self) -> None:
        await trio.lowlevel.checkpoint()

    async def idle(self) -> None:
        """No tick comes while time stands still; so that nobody waits for ever, one comes at once."""
        self.slice_over()
        await trio.lowlevel.checkpoint()

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: what can run now does so before, and everything that falls due
        happens, in its order, at its time, before this returns. A task that never waits gets
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
        # Where pytest is installed, this imports it: 50 ms that no other mount should wait for.
        from trio.testing import wait_all_tasks_blocked

        self._slices = BUSY_SLICES
        with trio.CancelScope() as self._settling:
            await wait_all_tasks_blocked()
        self._settling = None

    def slice_over(self) -> None:
        self._slices -= 1
        if self._settling is not None and self._slices <= 0:
            self._settling.cancel()
