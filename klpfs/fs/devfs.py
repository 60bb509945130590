# SPDX-License-Identifier: GPL-2.0-or-later
"""``dev/kmsg``: the kernel log, one record for each read. Documentation/ABI/testing/dev-kmsg,
kernel/printk/printk.c.

In Linux it is a device. Here it can only be a file, and FUSE does not report lseek(2) to it: a seek
shows only in the offset of the next read. So the file has a size, which is that of the log as text, and
an offset that was once its size means the end of the log at that time: that is where SEEK_END leads.
"""

from __future__ import annotations

import errno
import os
import re
import select
from collections.abc import Callable

from klpfs.fs.nodes import Caller, Directory, Handle
from klpfs.fs.streams import Stream
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.printk import LOGLEVEL_DEFAULT, Printk
from klpfs.machine.kernel.vsprintf import LOG_LINE_MAX

_FACILITY_USER = 1
_MAX_REPORTED = 1000

SEEK_TO_DATA = 1 << 61
SEEK_TO_END = 1 << 62
"""Offsets that mean SEEK_DATA and SEEK_END, the first record after a clear and the end of the log. The
host's kernel answers SEEK_DATA by itself, with 0 or ENXIO. A program that means it on dev/kmsg has to
seek to this offset instead, as `klpfs.running.supervisor` does."""


class _Kmsg(Stream):
    """The file. It remembers the sizes that it reported, because SEEK_END turns them into offsets."""

    def __init__(self, printk: Printk) -> None:
        super().__init__(
            lambda _n, _c, flags: _KmsgHandle(self, printk, flags), 0o644, self._report_size
        )
        self._printk = printk
        self.reported_sizes: dict[int, int] = {}
        """Sizes, oldest first, and the number of the next record at that time."""

    def _report_size(self) -> int:
        size = len(self._printk.text())
        self.reported_sizes.pop(size, None)
        self.reported_sizes[size] = self._printk.next_seq
        if len(self.reported_sizes) > _MAX_REPORTED:
            del self.reported_sizes[next(iter(self.reported_sizes))]
        return size


class _KmsgHandle(Handle):
    """An open kmsg, with its own position in the log."""

    node: _Kmsg

    def __init__(self, node: _Kmsg, printk: Printk, flags: int) -> None:
        super().__init__(node)
        self._printk = printk
        self._seq = printk.first_seq
        self._blocks = not flags & os.O_NONBLOCK
        self._appends = bool(flags & os.O_APPEND)
        self._offset = 0  # of the next read, if there is no lseek(2) before it

    def _seek(self, offset: int) -> None:
        """``devkmsg_llseek``: go to the first record, the first one after a clear, or the end."""
        if offset == 0:
            self._seq = self._printk.first_seq
        elif offset == SEEK_TO_DATA:
            self._seq = max(self._printk.clear_seq, self._printk.first_seq)
        else:
            self._seq = self.node.reported_sizes.get(offset, self._printk.next_seq)
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
        # Unlike in a device, a write moves the file's offset. Note a seek before it, then the new offset.
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
    """Return the directory, which contains ``kmsg``."""
    root = Directory(0o755)
    root.add("kmsg", _Kmsg(kernel.printk))
    return root
