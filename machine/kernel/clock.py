# SPDX-License-Identifier: GPL-2.0-or-later
"""Time in the guest: the host's, or virtual time that moves only when it is told to."""

from __future__ import annotations

import heapq
import itertools
import time

import trio
import trio.testing

HZ = 250
"""Ticks of ``jiffies`` in a second, CONFIG_HZ."""
INITIAL_JIFFIES = (1 << 64) - 300 * HZ
"""jiffies wrap five minutes after boot, as include/linux/jiffies.h has it."""


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


class VirtualClock(Clock):
    """Time that stands still until `advance`."""

    virtual = True

    def __init__(self) -> None:
        super().__init__()
        self.boot_time = 0  # a machine without a battery: every run the same
        self._now = 0
        self._order = itertools.count()
        self._timeouts: list[tuple[int, int, trio.CancelScope]] = []

    def now(self) -> int:
        return self._now

    def timeout(self, seconds: float) -> trio.CancelScope:
        scope = trio.CancelScope()
        if seconds <= 0:
            scope.cancel()
        else:
            deadline = self._now + round(seconds * 1e9)
            heapq.heappush(self._timeouts, (deadline, next(self._order), scope))
        return scope

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: what can run now does so before, and everything that falls due
        happens, in its order, at its time, before this returns. A checkpoint."""
        await trio.testing.wait_all_tasks_blocked()
        end = self._now + round(seconds * 1e9)
        while self._timeouts and self._timeouts[0][0] <= end:
            deadline, _, scope = heapq.heappop(self._timeouts)
            self._now = max(self._now, deadline)
            if not scope.cancel_called:
                scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
        self._now = end
        await trio.testing.wait_all_tasks_blocked()
