# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's timer chip: it ends a time slice that guest code does not end by itself.

A thread, since nothing else can reach into a running emulator. It touches nothing but the
``interrupt`` it is given, and sleeps while no guest code runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Ticker:
    """Calls ``interrupt`` when a slice is ``period`` seconds old, and again until it ends."""

    def __init__(self, period: float, interrupt: Callable[[], object]) -> None:
        self.period = period
        self._interrupt = interrupt
        self._slice_started = 0.0
        self._last_used = 0.0
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start_slice(self) -> None:
        """Guest code is about to run."""
        self._slice_started = self._last_used = time.monotonic()
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
                self._thread.start()

    def end_slice(self) -> None:
        """Guest code has stopped."""
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
                # A slice that began, or an end that came, between the look above and the line before
                # this one would wait for ever: look again.
                if not self._slice_started and not self._closed:
                    self._wake.wait()
                continue
            time.sleep(left)
