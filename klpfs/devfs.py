# SPDX-License-Identifier: GPL-2.0-or-later
"""``dev/kmsg``: the log, a record for each read. Documentation/ABI/testing/dev-kmsg,
kernel/printk/printk.c."""

from __future__ import annotations

import errno
import os
import re

from klpfs.nodes import Caller, Directory, Handle, Node, Stream
from machine.kernel import printk as log
from machine.kernel.kernel import Kernel
from machine.kernel.printk import Printk

_LINE_MAX = 1024 - 32  # CONSOLE_EXT_LOG_MAX leaves that for the text of one write
_FACILITY_USER = 1

SEEK_TO_DATA = 1 << 61
SEEK_TO_END = 1 << 62
"""A FUSE server is told where a file is read, not of lseek(2); and of files without a size, SEEK_DATA
and SEEK_END are not known. Who reads from one of these offsets means it (`klpfs.supervisor`)."""


class _KmsgHandle(Handle):
    """A reader (and writer) of the log with a place of its own in it."""

    def __init__(self, node: Node, printk: Printk, flags: int) -> None:
        super().__init__(node)
        self._printk = printk
        self._seq = printk.first_seq
        self._blocks = not flags & os.O_NONBLOCK
        self._offset = 0  # where the next read will be, without lseek(2)

    def _seek(self, offset: int) -> None:
        """``devkmsg_llseek``: to the first record, the first after a clear, or behind the last."""
        if offset == 0:
            self._seq = self._printk.first_seq
        elif offset == SEEK_TO_DATA:
            self._seq = max(self._printk.clear_seq, self._printk.first_seq)
        elif offset == SEEK_TO_END:
            self._seq = self._printk.next_seq

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        if offset != self._offset:
            self._seek(offset)
            self._offset = offset
        if self._seq < self._printk.first_seq:
            self._seq = self._printk.first_seq
            raise OSError(errno.EPIPE, "records were overwritten")
        record = self._printk.record(self._seq)
        if record is None:
            if not self._blocks:
                raise OSError(errno.EAGAIN, "no record")
            await self._printk.wait_for(self._seq)
            record = self._printk.record(self._seq)
            assert record is not None
        text = record.kmsg()
        if len(text) > size:
            raise OSError(errno.EINVAL, "the buffer is too small")
        self._seq += 1
        self._offset = offset + len(text)
        return text

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        if len(data) > _LINE_MAX:
            raise OSError(errno.EINVAL, "the line is too long")
        level, facility = log.LOGLEVEL_DEFAULT, _FACILITY_USER
        prefix = re.match(rb"<(\d+)>", data)
        text = data
        if prefix:
            number = int(prefix[1])
            level, facility = number & 7, number >> 3 or _FACILITY_USER
            text = data[prefix.end() :]
        self._printk.emit(facility, level, text.decode("utf-8", "surrogateescape"))
        return len(data)


def devfs(kernel: Kernel) -> Directory:
    """The directory with ``kmsg`` in it."""
    root = Directory(0o755)
    root.add(
        "kmsg", Stream(lambda node, _caller, flags: _KmsgHandle(node, kernel.printk, flags), 0o644)
    )
    return root
