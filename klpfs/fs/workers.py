# SPDX-License-Identifier: GPL-2.0-or-later
"""How the workers of pyfuse3 take turns in waiting for requests.

pyfuse3 has one worker for each request in progress, and one that waits for the next request. By
itself it passes the turn to another worker after each request. That takes two rounds of the event loop,
which is more than most requests take. Here a worker keeps the turn unless its request blocks. And as
the program that got an answer usually sends another request at once, the worker polls for it before it
returns to the event loop.
"""

from __future__ import annotations

import select
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import trio

POLL_SECONDS = 100e-6
"""Seconds to poll for the next request after an answer. Nothing else runs meanwhile."""
MAX_BURST = 1e-3
"""Seconds for which requests may follow one another in this way before other tasks get their turn."""

T = TypeVar("T")


class WorkerTrio:
    """A replacement of the module ``trio`` in pyfuse3, as ``pyfuse3.asyncio`` is.

    It is all of trio, with another ``Lock`` and another ``lowlevel.wait_readable``.
    """

    def __init__(self) -> None:
        self.lowlevel = self
        self._locked = False
        self._waiters = trio.lowlevel.ParkingLot()
        self._burst_end = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name, None) or getattr(trio, name)

    def Lock(self) -> WorkerTrio:
        """Return the lock that a worker holds while it waits for a request: the object itself."""
        return self

    async def __aenter__(self) -> None:
        while self._locked:
            await self._waiters.park()
        self._locked = True

    async def __aexit__(self, *_: object) -> None:
        self._locked = False  # without waking another worker: see wake_next()

    def wake_next(self) -> None:
        """Pass the turn to another worker: the one that had it is going to block."""
        if not self._locked:
            self._waiters.unpark()

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request. Not always a checkpoint."""
        now = time.monotonic()
        if now < self._burst_end:
            # A sleeping CPU takes longer to wake up than most requests take.
            until = now + POLL_SECONDS
            while now < until:
                if select.select([descriptor], (), (), 0)[0]:
                    return
                now = time.monotonic()
        await trio.lowlevel.wait_readable(descriptor)
        self._burst_end = time.monotonic() + MAX_BURST


@types.coroutine
def call_if_blocked(
    coroutine: Coroutine[Any, Any, T], on_block: Callable[[], None]
) -> Generator[Any, Any, T]:
    """Run a coroutine as ``await`` does; call ``on_block`` if it blocks."""
    try:
        message = coroutine.send(None)
        on_block()
        while True:
            try:
                answer = yield message
            except BaseException as error:
                message = coroutine.throw(error)
            else:
                message = coroutine.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
