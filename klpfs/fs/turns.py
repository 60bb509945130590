# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose turn it is to wait for the next request: the worker's that has just answered one.

pyfuse3 has a worker for each request that is being served, and one that waits for the next. By itself,
it gives the turn to another worker at every request, and goes through the event loop twice for it,
which takes longer than most requests. Here a worker keeps the turn, unless serving a request makes it
wait; and since who got an answer mostly asks on at once, it waits for that before it looks at the
event loop again.
"""

from __future__ import annotations

import select
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import trio

EAGER = 100e-6
"""Seconds of wakefulness after an answer, in which all else waits, in case that there is a next request."""
MAX_BURST = 1e-3
"""Seconds for which requests may follow one another so before all else has its turn."""

T = TypeVar("T")


class Turns:
    """Stands in for the module ``trio`` in pyfuse3, as its ``pyfuse3.asyncio`` does."""

    def __init__(self) -> None:
        self.lowlevel = self
        self._taken = False
        self._others = trio.lowlevel.ParkingLot()
        self._burst = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name, None) or getattr(trio, name)

    def Lock(self) -> Turns:
        """What a worker holds while it waits for a request."""
        return self

    async def __aenter__(self) -> None:
        while self._taken:
            await self._others.park()
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        self._taken = False  # the others sleep on, until `pass_on`

    def pass_on(self) -> None:
        """The worker that has the turn is going to wait for something else."""
        if not self._taken:
            self._others.unpark()

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request. Not always a checkpoint."""
        now = time.monotonic()
        if now < self._burst:
            # Awake: a processor that sleeps takes longer to wake up than a request takes.
            until = now + EAGER
            while now < until:
                if select.select([descriptor], (), (), 0)[0]:
                    return
                now = time.monotonic()
        await trio.lowlevel.wait_readable(descriptor)
        self._burst = time.monotonic() + MAX_BURST


@types.coroutine
def noticing(
    coroutine: Coroutine[Any, Any, T], waits: Callable[[], None]
) -> Generator[Any, Any, T]:
    """Run a coroutine as ``await`` does; ``waits`` is called if it has to wait for something."""
    try:
        message = coroutine.send(None)
        waits()
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
