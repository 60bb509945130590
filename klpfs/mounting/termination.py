# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGTERM and SIGINT, which end a daemon in any state.

A thread waits for them, because the main thread may be in a loop, or in a call that does not return.
It asks the event loop to end. If the loop has not ended after `GRACE` seconds, the thread removes the
mount and ends the process; the kernel then aborts the requests in progress.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import trio

from klpfs.mounting import mounts

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 3.0
"""Seconds that the event loop has to end after a signal."""
_DETACH_SECONDS = 1.0


class Termination:
    """The thread that waits for the signals."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._mount: mounts.Mount | None = None
        self._request: Callable[[], None] = lambda: None
        self._pending = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()

    def notify(self, token: trio.lowlevel.TrioToken, event: trio.Event) -> None:
        """Set ``event`` in a running event loop at the first signal, also at one in the past."""
        self._request = lambda: token.run_sync_soon(event.set, idempotent=True)
        if self._pending:
            event.set()

    def note_mounted(self, mount: mounts.Mount | None) -> None:
        """Remove this mount if the process has to be ended."""
        self._mount = mount

    def close(self) -> None:
        """End the thread. Signals are ignored from now on."""
        self._ended.set()
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(self._thread.ident or 0, signal.SIGTERM)
        self._thread.join()

    def _wait(self) -> None:
        signal.sigwait(SIGNALS)
        self._pending = True
        with contextlib.suppress(trio.RunFinishedError):
            self._request()
        if not self._ended.wait(GRACE):
            self._end_process()

    def _end_process(self) -> None:
        os.write(2, b"klpfs: the daemon does not end by itself; unmounting\n")
        timeout = threading.Timer(_DETACH_SECONDS, os._exit, (1,))
        timeout.daemon = True
        timeout.start()
        try:
            if self._mount is not None and mounts.mount_at(self._path) == self._mount:
                mounts.detach(self._path, lazy=True)
        finally:
            os._exit(1)


@contextlib.contextmanager
def handled(path: str) -> Iterator[Termination]:
    """Handle the signals during the body, which serves ``path``. No thread may be started before."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    termination = Termination(path)
    try:
        yield termination
    finally:
        termination.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
