# SPDX-License-Identifier: GPL-2.0-or-later
"""What a script is doing, on standard error, while it does it."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

DELAY_SECONDS = 2.0
"""A script that ends sooner shows nothing."""
LINE_SECONDS = 10.0
"""The time between two lines where standard error is no terminal."""


class Progress:
    """A line with the present step, its number and the time since the start.

    On a terminal this line changes in place; elsewhere a new line is printed every `LINE_SECONDS`.
    A context manager: the line is removed at its end. It has threads of its own from the first step
    on.
    """

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._start = time.monotonic()
        self._what = ""
        self._number: int | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._renderable,
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,  # what the script prints may go somewhere else
            redirect_stderr=False,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._live.stop()

    def step(self, what: str, number: int | None = None) -> None:
        """Show another step: the ``number``-th, from 1 on, of the total."""
        self._what, self._number = what, number
        if self._thread is None:
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()

    def print(self, text: str) -> None:
        """Print text on standard output, above the line."""
        with self._lock:
            shown = self._live.is_started
            if shown:
                self._live.stop()
            print(text, flush=True)
            if shown:
                self._live.start()

    def _line(self) -> str:
        total = "" if self._total is None else f" of {self._total}"
        number = "" if self._number is None else f"{self._number}{total}: "
        return f"{number}{self._what}, {time.monotonic() - self._start:.0f} s"

    def _renderable(self) -> Spinner:
        self._spinner.update(text=Text(self._line()))
        return self._spinner

    def _show(self) -> None:
        if self._ended.wait(DELAY_SECONDS - (time.monotonic() - self._start)):
            return
        if self._live.console.is_terminal:
            with self._lock:
                self._live.start()
            return
        while True:
            print(f"# {self._line()}", file=sys.stderr, flush=True)
            if self._ended.wait(LINE_SECONDS):
                return
