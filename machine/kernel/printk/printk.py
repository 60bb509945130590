# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log: records, continuation lines, readers that wait. kernel/printk/printk.c."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import trio

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.service import S32, U32, Ptr, service
from klpfs.machine.kernel.vsprintf import LOG_LINE_MAX, formatting, text

LOGLEVEL_EMERG, LOGLEVEL_ALERT, LOGLEVEL_CRIT, LOGLEVEL_ERR = range(4)
LOGLEVEL_WARNING, LOGLEVEL_NOTICE, LOGLEVEL_INFO, LOGLEVEL_DEBUG = range(4, 8)
LOGLEVEL_DEFAULT = -1
MESSAGE_LOGLEVEL_DEFAULT = LOGLEVEL_WARNING
_SOH = "\x01"
_LEVEL_PREFIX = "\x016"
"""Level prefix of a message of the kernel, which counts for the length of the line."""
LOG_BUF_BYTES = 1 << 20
"""Size of the log in bytes. Older records are dropped."""
_RECORD_BYTES = 32
"""Size of a record without its text, in bytes, as the kernel assumes for ``prb_desc_ring``."""


class Record(NamedTuple):
    """One record of the log. ``time``: nanoseconds since boot."""

    seq: int
    time: int
    facility: int
    level: int
    text: str
    continued: bool = False
    """True for a continuation (KERN_CONT) that could not be appended to the line before."""

    @property
    def priority(self) -> int:
        """Facility and level, as in the first field of a line of /dev/kmsg."""
        return self.facility << 3 | self.level

    def kmsg(self) -> bytes:
        """Return the record in the format of /dev/kmsg, Documentation/ABI/testing/dev-kmsg."""
        body = "".join(
            chr(byte) if 32 <= byte < 127 and byte != 0x5C else f"\\x{byte:02x}"
            for byte in self.text.encode("utf-8", "surrogateescape")
        )
        flag = "c" if self.continued else "-"
        return f"{self.priority},{self.seq},{self.time // 1000},{flag};{body}\n".encode()

    def syslog(self) -> str:
        """Return the record in the format of syslog(2): priority, time and text, for each line of the
        text."""
        seconds, rest = divmod(self.time // 1000, 1_000_000)
        stamp = f"<{self.priority}>[{seconds:5d}.{rest:06d}] "
        return "".join(f"{stamp}{line}\n" for line in self.text.split("\n"))


class Printk:
    """The log of one machine."""

    def __init__(self, computer: Computer, clock: Clock) -> None:
        self._computer = computer
        self._clock = clock
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._next_seq = 0
        self._open: Record | None = None  # without a newline yet: not visible, may be continued
        self._awaited: trio.Event | None = None
        self._notify: dict[Callable[[], None], None] = {}
        self.clear_seq = 0
        """Sequence number of the first record after ``dmesg -C``."""
        self._printed_once: set[str] = set()

    @property
    def next_seq(self) -> int:
        """Sequence number of the next record that becomes visible."""
        return self._next_seq if self._open is None else self._open.seq

    @property
    def first_seq(self) -> int:
        """Sequence number of the oldest record."""
        return self._records[0].seq if self._records else self.next_seq

    def records(self, seq: int = 0) -> list[Record]:
        """Return all records from ``seq`` on."""
        skip = max(0, seq - self.first_seq)
        return [record for i, record in enumerate(self._records) if i >= skip]

    def record(self, seq: int) -> Record | None:
        """Return the record ``seq``, or None if there is none yet. Raises OSError(EPIPE) if it was
        overwritten."""
        if seq < self.first_seq:
            raise OSError(errno.EPIPE, "the record was overwritten")
        index = seq - self.first_seq
        return self._records[index] if index < len(self._records) else None

    async def wait_for(self, seq: int) -> None:
        """Wait until the record ``seq`` is visible. A checkpoint unless it is."""
        while seq >= self.next_seq:
            if self._awaited is None:
                self._awaited = trio.Event()
            await self._awaited.wait()

    def notify_once(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once, after the next record. Several requests for one function count as one."""
        self._notify[notify] = None

    def text(self, seq: int = 0) -> bytes:
        """Return all records from ``seq`` on in the format of syslog(2)."""
        lines = "".join(record.syslog() for record in self.records(seq))
        return lines.encode("utf-8", "surrogateescape")

    def clear(self) -> None:
        """``syslog_clear``: later listings start with the next record, as after ``dmesg -C``."""
        self.clear_seq = self.next_seq

    def __call__(self, level: int, message: str, *, facility: int = 0) -> None:
        """``printk(level, message)``. The message has no newline at its end."""
        prefix = 0 if facility else len(_LEVEL_PREFIX)
        self._finish(self._begin(facility, level, message[: LOG_LINE_MAX - prefix - 1]))

    def once(self, place: str, level: int, message: str) -> None:
        """``printk_once``: log a message, unless this was called with ``place`` before."""
        if place not in self._printed_once:
            self._printed_once.add(place)
            self(level, message)

    def emit(self, facility: int, level: int, formatted: str) -> None:
        """``vprintk_store``: store formatted text, which may have level prefixes and a newline. If it has no
        newline, the next message may continue the line (KERN_CONT)."""
        continued = False
        while facility == 0 and len(formatted) >= 2 and formatted[0] == _SOH:
            kind, formatted = formatted[1], formatted[2:]
            if kind == "c":
                continued = True
            elif kind.isdigit() and level == LOGLEVEL_DEFAULT:
                level = int(kind)
        message = formatted.removesuffix("\n")
        if continued and self._open is not None:
            record = self._open._replace(text=(self._open.text + message)[:LOG_LINE_MAX])
        else:
            record = self._begin(facility, level, message, continued)
        if formatted.endswith("\n"):
            self._finish(record)
        else:
            self._open = record

    def _begin(self, facility: int, level: int, message: str, continued: bool = False) -> Record:
        if self._open is not None:
            self._finish(self._open)
        if level == LOGLEVEL_DEFAULT:
            level = MESSAGE_LOGLEVEL_DEFAULT
        self._next_seq += 1
        seq, now = self._next_seq - 1, self._clock.now()
        return Record(seq, now, facility & 0xFF, level & 7, message, continued)

    def _finish(self, record: Record) -> None:
        """Make a record visible, drop the oldest records, and wake the readers."""
        self._open = None
        self._records.append(record)
        self._bytes += _RECORD_BYTES + len(record.text)
        while self._bytes > LOG_BUF_BYTES:
            self._bytes -= _RECORD_BYTES + len(self._records.popleft().text)
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None
        notified, self._notify = self._notify, {}
        for notify in notified:
            notify()

    @service("vprintk_emit", prologue=formatting)
    def vprintk_emit(self, facility: S32, level: S32, formatted: Ptr, length: U32) -> int:
        length = min(length, LOG_LINE_MAX)  # guest code may call the trap with another length
        self.emit(facility, level, text(self._computer.memory.read(formatted, length)))
        return length
