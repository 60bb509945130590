# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of text: attributes of sysfs, and files of /proc."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Awaitable, Callable

from klpfs.fs.nodes import PAGE_SIZE, POLL_READY, Caller, File, Handle

Show = Callable[[Caller], Awaitable[bytes]]
Store = Callable[[Caller, bytes], Awaitable[None]]


class Attribute(File):
    """A text file of sysfs (fs/sysfs/file.c and fs/kernfs/file.c).

    ``show`` returns the contents; ``store`` gets the data of one write(2), at most a page.
    ``mode`` is by default 0444 for ``show`` and 0200 for ``store``, or both.
    """

    size = PAGE_SIZE
    fsync_errno = 0
    limit: int | None = PAGE_SIZE
    """The bytes that one write(2) takes, and one more than the contents may have; None for no limit."""
    checked_on_open = True
    """True if open(2) fails with EACCES, even for root, if no mode bit allows the access."""
    unsupported_errno = errno.EIO
    """The error of a read without ``show`` or a write without ``store`` that open(2) did not refuse."""

    def __init__(
        self, show: Show | None = None, store: Store | None = None, mode: int | None = None
    ) -> None:
        if mode is None:
            mode = (0o444 if show else 0) | (0o200 if store else 0)
        super().__init__(stat.S_IFREG | mode)
        self.show = show
        self.store = store

    def open(self, caller: Caller, flags: int) -> Handle:
        access = flags & os.O_ACCMODE
        if self.checked_on_open:  # kernfs_fop_open(), fs/kernfs/file.c
            writes, reads = access in (os.O_WRONLY, os.O_RDWR), access in (os.O_RDONLY, os.O_RDWR)
            if (writes and not self.mode & 0o222) or (reads and not self.mode & 0o444):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return _AttributeHandle(self)


class ProcFile(Attribute):
    """A text file of /proc (fs/proc/generic.c, fs/seq_file.c).

    It has no size and no limit of a page, and open(2) checks nothing but the mode bits.
    """

    size = 0
    fsync_errno = errno.EINVAL
    limit = None
    checked_on_open = False


class _AttributeHandle(Handle):
    """An open `Attribute`. Sequential reads return parts of one text, as with seq_file."""

    node: Attribute

    def __init__(self, node: Attribute) -> None:
        super().__init__(node)
        self._text = b""
        self._position = 0
        self._was_read = False

    async def read(self, caller: Caller, offset: int, size: int) -> bytes | memoryview:
        node = self.node
        # seq_read_iter(), fs/seq_file.c: the contents are made again by any read that does not continue
        # where the last one ended.
        if offset == 0 or offset != self._position:
            self._position = 0
            if not node.alive:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            if node.show is None:
                raise OSError(node.unsupported_errno, os.strerror(node.unsupported_errno))
            self._was_read = True
            text = await node.show(caller)
            if node.limit is not None and len(text) >= node.limit:
                text = text[: node.limit - 1]  # sysfs_kf_seq_show(), fs/sysfs/file.c
            self._text = text
        elif not node.alive and offset >= len(self._text):  # kernfs_seq_start(), fs/kernfs/file.c
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        piece = memoryview(self._text)[offset : offset + size]
        self._position = offset + len(piece)
        return piece

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        node = self.node
        if not node.alive:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if node.store is None:
            raise OSError(node.unsupported_errno, os.strerror(node.unsupported_errno))
        data = data[: node.limit]
        if data:
            await node.store(caller, data)
        return len(data)

    def poll(self, notify: Callable[[], None] | None) -> int:
        # kernfs_fop_poll(), fs/kernfs/file.c: an event is pending until the first read, and after the
        # file is removed.
        if self.node.checked_on_open and not (self._was_read and self.node.alive):
            return POLL_READY | select.POLLERR | select.POLLPRI
        return POLL_READY
