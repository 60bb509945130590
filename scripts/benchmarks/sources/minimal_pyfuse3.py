# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference program in Python: the least that pyfuse3 needs to serve the same files.

minimal_pyfuse3.py DIRECTORY MOUNTPOINT: the directory is read once, and its files are those of the
mount.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import sys

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, ReaddirToken, RequestContext


class Operations(pyfuse3.Operations):
    def __init__(self, directory: str) -> None:
        super().__init__()
        self.nodes: dict[int, pyfuse3.EntryAttributes] = {}
        self.children: dict[int, dict[bytes, int]] = {}
        self.contents: dict[int, bytes] = {}
        self.numbers = itertools.count(1)
        self.load(directory)

    def load(self, path: str) -> InodeT:
        inode, info = InodeT(next(self.numbers)), os.lstat(path)
        entry = self.nodes[inode] = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_size = inode, info.st_size
        entry.st_mode = ModeT(info.st_mode)
        entry.st_nlink = info.st_nlink
        entry.entry_timeout = entry.attr_timeout = 1  # as in libfuse
        if stat.S_ISDIR(info.st_mode):
            names = sorted(os.listdir(path))
            self.children[inode] = {os.fsencode(n): self.load(os.path.join(path, n)) for n in names}
        elif stat.S_ISLNK(info.st_mode):
            self.contents[inode] = os.fsencode(os.readlink(path))
        else:
            with open(path, "rb") as file:
                self.contents[inode] = file.read()
        return inode

    async def lookup(
        self, parent: InodeT, name: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self.children[parent].get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.nodes[inode]

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        return self.nodes[inode]

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(self.contents[inode])

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=FileHandleT(inode), direct_io=True)

    async def read(self, fh: FileHandleT, offset: int, size: int) -> bytes:
        return self.contents[fh][offset : offset + size]

    async def write(self, fh: FileHandleT, offset: int, data: bytes) -> int:
        return len(data)

    async def release(self, fh: FileHandleT) -> None:
        pass

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def readdir(self, fh: FileHandleT, start: int, token: ReaddirToken) -> None:
        for i, (name, inode) in enumerate(self.children[fh].items()):
            entry = self.nodes[inode]
            if i >= start and not pyfuse3.readdir_reply(token, FileNameT(name), entry, i + 1):
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        pass


def main() -> None:
    pyfuse3.init(Operations(sys.argv[1]), sys.argv[2], {"fsname=reference", "default_permissions"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


main()
