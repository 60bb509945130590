# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference: as little pyfuse3 as gives the same answers.

minimal_pyfuse3.py DIRECTORY MOUNTPOINT: what is in the directory, read once, is what the mount has.
"""

import errno
import itertools
import os
import stat
import sys

import pyfuse3
import trio


class Operations(pyfuse3.Operations):
    def __init__(self, directory):
        super().__init__()
        self.nodes, self.children, self.contents = {}, {}, {}
        self.numbers = itertools.count(1)
        self.load(directory)

    def load(self, path):
        inode, info = next(self.numbers), os.lstat(path)
        entry = self.nodes[inode] = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_size = inode, info.st_mode, info.st_size
        entry.st_nlink = info.st_nlink
        entry.entry_timeout = entry.attr_timeout = 1  # as libfuse has it
        if stat.S_ISDIR(info.st_mode):
            names = sorted(os.listdir(path))
            self.children[inode] = {os.fsencode(n): self.load(os.path.join(path, n)) for n in names}
        elif stat.S_ISLNK(info.st_mode):
            self.contents[inode] = os.fsencode(os.readlink(path))
        else:
            with open(path, "rb") as file:
                self.contents[inode] = file.read()
        return inode

    async def lookup(self, parent, name, ctx):
        inode = self.children[parent].get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.nodes[inode]

    async def getattr(self, inode, ctx):
        return self.nodes[inode]

    async def readlink(self, inode, ctx):
        return self.contents[inode]

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh, offset, size):
        return self.contents[fh][offset : offset + size]

    async def write(self, fh, offset, data):
        return len(data)

    async def release(self, fh):
        pass

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, fh, start, token):
        for i, (name, inode) in enumerate(self.children[fh].items()):
            if i >= start and not pyfuse3.readdir_reply(token, name, self.nodes[inode], i + 1):
                return

    async def releasedir(self, fh):
        pass


def main():
    pyfuse3.init(Operations(sys.argv[1]), sys.argv[2], {"fsname=reference", "default_permissions"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


main()
