# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's timer chip, which ends the time slices of guest code.

It is a thread, as nothing else can interrupt a running emulator. It only calls the ``interrupt``
that it is given, and sleeps while no guest code runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Ticker:
    """Calls ``interrupt`` every ``period`` seconds from the start of a slice until its end."""

    def __init__(self, period: float, interrupt: Callable[[], object]) -> None:
        self.period = period
        self._interrupt = interrupt
        self._slice_started = 0.0
        self._last_used = 0.0
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start_slice(self) -> None:
        """Start the timer, before guest code runs."""
        self._slice_started = self._last_used = time.monotonic()
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
                self._thread.start()

    def end_slice(self) -> None:
        """Stop the timer, after guest code has run."""
        self._slice_started = 0.0

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            started, now = self._slice_started, time.monotonic()
            left = started + self.period - now if started else self.period
            if left <= 0:
                self._interrupt()
                left = self.period
            elif not started and now - self._last_used > 20 * self.period:
                self._wake.clear()
                # A slice that started, or a close(), just before the line above would be missed:
                # check again.
                if not self._slice_started and not self._closed:
                    self._wake.wait()
                continue
            time.sleep(left)
