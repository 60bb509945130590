# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that behave like devices: those that block, binary ones, and those that collect what is written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable

from klpfs.fs.nodes import Caller, File, Handle, Node


class Stream(File):
    """A file whose handles do all the work.

    ``opener`` returns a handle for each open(2), or raises `OSError`.
    ``size`` is the size in bytes that stat(2) reports, or a function that returns it.
    """

    def __init__(
        self,
        opener: Callable[[Stream, Caller, int], Handle],
        mode: int = 0o644,
        size: int | Callable[[], int] = 0,
    ) -> None:
        super().__init__(stat.S_IFREG | mode)
        self._opener = opener
        self._size = size
        self.cacheable = isinstance(size, int)

    @property
    def size(self) -> int:  # type: ignore[override]
        return self._size if isinstance(self._size, int) else self._size()

    def open(self, caller: Caller, flags: int) -> Handle:
        return self._opener(self, caller, flags)


class Upload(Stream):
    """A file to write as a whole: ``receive`` gets all data when the writer closes the file.

    An error of ``receive`` is the result of that close(2). A write beyond ``limit`` bytes fails with
    EFBIG, and ``receive`` is not called.
    """

    def __init__(
        self,
        receive: Callable[[Caller, bytes], Awaitable[None]],
        mode: int = 0o200,
        limit: int = 64 << 20,
    ) -> None:
        super().__init__(lambda node, caller, flags: _UploadHandle(node, receive, limit), mode)


class _UploadHandle(Handle):
    def __init__(
        self, node: Node, receive: Callable[[Caller, bytes], Awaitable[None]], limit: int
    ) -> None:
        super().__init__(node)
        self._receive = receive
        self._limit = limit
        self._data = bytearray()
        self._refused = False

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        if len(self._data) + len(data) > self._limit:
            self._refused = True
            self._data.clear()
        if self._refused:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._data += data
        return len(data)

    async def flush(self, caller: Caller) -> None:
        # A shell's redirection closes the original descriptor before anything is written.
        if self._data:
            data, self._data = bytes(self._data), bytearray()
            await self._receive(caller, data)
