# SPDX-License-Identifier: GPL-2.0-or-later
"""``dev/kmsg``: the log, a record for each read. Documentation/ABI/testing/dev-kmsg,
kernel/printk/printk.c.

In Linux it is a device; here it can only be a file, which is told of reads and their offsets, and of
lseek(2) by those alone. So the file has a size, that of the log as text: where SEEK_END leads to is an
offset that means the end of the log.
"""

from __future__ import annotations

import errno
import os
import re
import select
from collections.abc import Callable

from klpfs.fs.nodes import Caller, Directory, Handle, Stream
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.printk import LOGLEVEL_DEFAULT, Printk
from klpfs.machine.kernel.vsprintf import LOG_LINE_MAX

_FACILITY_USER = 1
_MAX_TOLD = 1000

SEEK_TO_DATA = 1 << 61
SEEK_TO_END = 1 << 62
"""Offsets that mean what SEEK_DATA and SEEK_END do. The host does not ask about SEEK_DATA, and answers
0 or ENXIO by itself: who knows what is meant goes here (`klpfs.running.supervisor`)."""


class _Kmsg(Stream):
    """The file: its size, as it was told at any time, is an offset that somebody may seek to."""

    def __init__(self, printk: Printk) -> None:
        super().__init__(lambda _n, _c, flags: _KmsgHandle(self, printk, flags), 0o644, self._tell)
        self._printk = printk
        self.told: dict[int, int] = {}
        """Sizes, oldest first, and the record that was the next to come."""

    def _tell(self) -> int:
        size = len(self._printk.text())
        self.told.pop(size, None)
        self.told[size] = self._printk.next_seq
        if len(self.told) > _MAX_TOLD:
            del self.told[next(iter(self.told))]
        return size


class _KmsgHandle(Handle):
    """A reader (and writer) of the log with a place of its own in it."""

    node: _Kmsg

    def __init__(self, node: _Kmsg, printk: Printk, flags: int) -> None:
        super().__init__(node)
        self._printk = printk
        self._seq = printk.first_seq
        self._blocks = not flags & os.O_NONBLOCK
        self._appends = bool(flags & os.O_APPEND)
        self._offset = 0  # where the next read will be, without lseek(2)

    def _seek(self, offset: int) -> None:
        """``devkmsg_llseek``: to the first record, the first after a clear, or behind the last."""
        if offset == 0:
            self._seq = self._printk.first_seq
        elif offset == SEEK_TO_DATA:
            self._seq = max(self._printk.clear_seq, self._printk.first_seq)
        else:
            self._seq = self.node.told.get(offset, self._printk.next_seq)
        self._offset = offset

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        if offset != self._offset:
            self._seek(offset)
        if self._seq >= self._printk.next_seq:
            if not self._blocks:
                raise OSError(errno.EAGAIN, "no record")
            await self._printk.wait_for(self._seq)
        if self._seq < self._printk.first_seq:
            self._seq = self._printk.first_seq
            raise OSError(errno.EPIPE, "records were overwritten")
        record = self._printk.record(self._seq)
        assert record is not None
        self._seq += 1
        text = record.kmsg()
        if len(text) > size:
            raise OSError(errno.EINVAL, "the buffer is too small")
        self._offset = offset + len(text)
        return text

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        if len(data) > LOG_LINE_MAX:
            raise OSError(errno.EINVAL, "the line is too long")
        level, facility = LOGLEVEL_DEFAULT, _FACILITY_USER
        line = data.split(b"\0")[0]
        if prefix := re.match(rb"<(\d*)>", line):
            number = int(prefix[1] or b"0")
            level, facility = number & 7, number >> 3 & 0xFF or _FACILITY_USER
            line = line[prefix.end() :]
        # Writing moves the position, as a device would not have it; where it was is still to be told.
        if offset != self._offset and not self._appends:
            self._seek(offset)
        self._offset = offset + len(data)
        self._printk.emit(facility, level, line.decode("utf-8", "surrogateescape"))
        return len(data)

    def poll(self, notify: Callable[[], None] | None) -> int:
        """``devkmsg_poll``."""
        if self._seq >= self._printk.next_seq:
            if notify is not None:
                self._printk.notify_once(notify)
            return 0
        ready = select.POLLIN | select.POLLRDNORM
        if self._seq < self._printk.first_seq:
            ready |= select.POLLERR | select.POLLPRI
        return ready


def devfs(kernel: Kernel) -> Directory:
    """The directory with ``kmsg`` in it."""
    root = Directory(0o755)
    root.add("kmsg", _Kmsg(kernel.printk))
    return root
