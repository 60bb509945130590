# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log, kernel/printk/printk.c: records, continuation lines, readers that wait."""

from __future__ import annotations

import errno
from collections import deque
from typing import NamedTuple

import trio

from machine.computer import Computer
from machine.kernel.clock import Clock
from machine.kernel.sched import Scheduler
from machine.kernel.service import S32, Ptr, service
from machine.kernel.vsprintf import LOG_LINE_MAX, text, vscnprintf

EMERG, ALERT, CRIT, ERR, WARNING, NOTICE, INFO, DEBUG = range(8)
LOGLEVEL_DEFAULT = -1
DEFAULT_MESSAGE_LOGLEVEL = WARNING
_SOH = "\x01"
LOG_BUF_BYTES = 1 << 20
"""Text that is kept; older records are dropped."""


class Record(NamedTuple):
    """One record of the log. ``time`` in nanoseconds since boot."""

    seq: int
    time: int
    facility: int
    level: int
    text: str

    @property
    def priority(self) -> int:
        """The number in front of a line of /dev/kmsg."""
        return self.facility << 3 | self.level

    def kmsg(self) -> bytes:
        """The record as /dev/kmsg gives it, Documentation/ABI/testing/dev-kmsg."""
        body = "".join(
            c if " " <= c <= "~" and c != "\\" or ord(c) > 126 else f"\\x{ord(c):02x}"
            for c in self.text
        )
        line = f"{self.priority},{self.seq},{self.time // 1000},-;{body}\n"
        return line.encode("utf-8", "surrogateescape")

    def syslog(self) -> str:
        """The record as syslog(2) gives it: priority, time, text; a line for each line of it."""
        seconds, rest = divmod(self.time // 1000, 1_000_000)
        stamp = f"<{self.priority}>[{seconds:5d}.{rest:06d}] "
        return "".join(f"{stamp}{line}\n" for line in self.text.split("\n"))


class Printk:
    """The log of one machine."""

    def __init__(self, computer: Computer, clock: Clock, sched: Scheduler) -> None:
        self._computer = computer
        self._clock = clock
        self._sched = sched
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._next_seq = 0
        self._open_line = False  # the last record had no newline and may be continued
        self._arrived = trio.Event()
        self.clear_seq = 0
        """``dmesg`` begins here, after ``dmesg -C``."""
        self._said_once: set[str] = set()

    @property
    def next_seq(self) -> int:
        """The sequence number that the next record will get."""
        return self._next_seq

    @property
    def first_seq(self) -> int:
        """The oldest record that is still there."""
        return self._records[0].seq if self._records else self._next_seq

    def records(self, seq: int = 0) -> list[Record]:
        """All records from ``seq`` on."""
        skip = max(0, seq - self.first_seq)
        return [record for i, record in enumerate(self._records) if i >= skip]

    def record(self, seq: int) -> Record | None:
        """The record ``seq``, or None if it has not come yet. Raises OSError(EPIPE) if it is gone."""
        if seq < self.first_seq:
            raise OSError(errno.EPIPE, "overwritten")
        index = seq - self.first_seq
        return self._records[index] if index < len(self._records) else None

    async def wait_for(self, seq: int) -> None:
        """Wait until record ``seq`` is there."""
        while seq >= self._next_seq:
            await self._arrived.wait()

    def clear(self) -> None:
        """What ``dmesg -C`` does: later listings begin with what comes now."""
        self.clear_seq = self._next_seq

    def __call__(self, level: int, message: str, *, facility: int = 0) -> None:
        """``printk(level, message)``; a final newline is implied."""
        self._store(facility, level, message, complete=True)

    def once(self, level: int, message: str) -> None:
        """``pr_notice_once`` and its kin: the first time only."""
        if message not in self._said_once:
            self._said_once.add(message)
            self(level, message)

    def emit(self, facility: int, level: int, formatted: str) -> None:
        """Store what a format string of the guest gave, its level prefix and newline included."""
        continued = False
        while len(formatted) >= 2 and formatted[0] == _SOH:
            kind, formatted = formatted[1], formatted[2:]
            if kind == "c":
                continued = True
            elif kind.isdigit() and level == LOGLEVEL_DEFAULT:
                level = int(kind)
        complete = formatted.endswith("\n")
        formatted = formatted.removesuffix("\n")
        if continued and self._open_line and self._records:
            last = self._records.pop()
            self._bytes -= len(last.text)
            self._append(last._replace(text=(last.text + formatted)[:LOG_LINE_MAX]))
            self._open_line = not complete
        else:
            self._store(facility, level, formatted, complete)

    def _store(self, facility: int, level: int, message: str, complete: bool) -> None:
        if level == LOGLEVEL_DEFAULT:
            level = DEFAULT_MESSAGE_LOGLEVEL
        self._append(Record(self._next_seq, self._clock.now(), facility, level, message))
        self._next_seq += 1
        self._open_line = not complete
        arrived, self._arrived = self._arrived, trio.Event()
        arrived.set()

    def _append(self, record: Record) -> None:
        self._records.append(record)
        self._bytes += len(record.text)
        while self._bytes > LOG_BUF_BYTES:
            self._bytes -= len(self._records.popleft().text)

    @service("vprintk_emit")
    async def vprintk_emit(
        self, facility: S32, level: S32, _info: Ptr, fmt: Ptr, va_list: Ptr
    ) -> int:
        formatted = text(await vscnprintf(self._computer, self._sched.current, fmt, va_list))
        self.emit(facility, level, formatted)
        return len(formatted)
