# SPDX-License-Identifier: GPL-2.0-or-later
"""``syslog(2)``, the system call behind klogctl(3). ``do_syslog``, kernel/printk/printk.c."""

from __future__ import annotations

import enum
import errno

from klpfs.machine.kernel.printk.printk import LOG_BUF_BYTES, Printk


class Action(enum.IntEnum):
    """``SYSLOG_ACTION_*``, include/linux/syslog.h."""

    CLOSE = 0
    OPEN = 1
    READ = 2
    READ_ALL = 3
    READ_CLEAR = 4
    CLEAR = 5
    CONSOLE_OFF = 6
    CONSOLE_ON = 7
    CONSOLE_LEVEL = 8
    SIZE_UNREAD = 9
    SIZE_BUFFER = 10


_READING = (Action.READ, Action.READ_ALL, Action.READ_CLEAR)


class Syslog:
    """The log reader that all callers of ``syslog(2)`` share."""

    def __init__(self, printk: Printk) -> None:
        self._printk = printk
        self._seq = 0
        self._partial = b""  # the rest of the record before _seq, which did not fit

    async def call(self, action: int, size: int) -> int | bytes:
        """``do_syslog``: return the result of the call, or the text for the caller's buffer of ``size``
        bytes. READ waits until there is text. The actions for the console have no effect.

        Raises OSError(EINVAL).
        """
        if action in _READING and size < 0:
            raise OSError(errno.EINVAL, "invalid buffer size")
        match action:
            case Action.CLOSE | Action.OPEN | Action.CONSOLE_OFF | Action.CONSOLE_ON:
                return 0
            case Action.READ:
                return await self._read(size) if size else b""
            case Action.READ_ALL:
                return self._last(size) if size else b""
            case Action.READ_CLEAR:
                if not size:
                    return b""
                text = self._last(size)
                self._printk.clear()
                return text
            case Action.CLEAR:
                self._printk.clear()
                return 0
            case Action.CONSOLE_LEVEL:
                if not 1 <= size <= 8:
                    raise OSError(errno.EINVAL, "the level must be between 1 and 8")
                return 0
            case Action.SIZE_UNREAD:
                self._catch_up()
                return len(self._partial) + sum(
                    len(_encode(record.syslog())) for record in self._printk.records(self._seq)
                )
            case Action.SIZE_BUFFER:
                return LOG_BUF_BYTES
        raise OSError(errno.EINVAL, "no such action")

    def _catch_up(self) -> None:
        """Skip records that were overwritten before they were read."""
        if self._seq < self._printk.first_seq:
            self._seq, self._partial = self._printk.first_seq, b""

    async def _read(self, size: int) -> bytes:
        """``syslog_print``: return as many whole records as fit, or a part of one that does not fit."""
        if not self._partial:
            await self._printk.wait_for(self._seq)
        self._catch_up()
        text, self._partial = self._partial[:size], self._partial[size:]
        while not self._partial and (record := self._printk.record(self._seq)) is not None:
            line = _encode(record.syslog())
            room = size - len(text)
            if len(line) > room and text:
                break
            text += line[:room]
            self._partial = line[room:]
            self._seq += 1
        return text

    def _last(self, size: int) -> bytes:
        """``syslog_print_all``: return the last records since the log was cleared, as many as fit."""
        lines: list[bytes] = []
        for record in reversed(self._printk.records(self._printk.clear_seq)):
            line = _encode(record.syslog())
            if len(line) > size:
                break
            size -= len(line)
            lines.append(line)
        return b"".join(reversed(lines))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
