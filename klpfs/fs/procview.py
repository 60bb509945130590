# SPDX-License-Identifier: GPL-2.0-or-later
"""``machine/procview``: the directory that a program under `klpfs.running.run` sees as /proc.

It has the guest's files, and a symbolic link to the host's for everything else. The host's procfs is
mounted on ``.host`` in the mount namespace of that program, and nowhere else. Procfs cannot be extended,
and no file system may be stacked on it. Links keep what only procfs can do, as in ``self/fd``. The
host's sysctls are read-only files instead, because sysctl(8) does not follow links.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from klpfs.fs.dynamic import DynamicDirectory
from klpfs.fs.nodes import Caller, Directory, File, Handle, Node, ProcDirectory, Symlink
from klpfs.fs.sysctl import Sysctl, SysctlDirectory

HOST = ".host"
"""The name of the directory on which the host's procfs is mounted."""
_SYSCTLS = "sys"


class _GuestFile(File):
    """A second node for a file of the guest's proc."""

    def __init__(self, file: File) -> None:
        super().__init__(file.mode)
        self.file = file
        self.size = file.size

    def open(self, caller: Caller, flags: int) -> Handle:
        return self.file.open(caller, flags)


def _host_sysctl(path: str) -> Sysctl:
    """Return a read-only file with the contents of a sysctl of the host."""

    async def show(_caller: Caller) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    return Sysctl(show, mode=os.stat(path).st_mode & 0o444)


class ProcView(DynamicDirectory, ProcDirectory):
    """A directory of the guest's proc, merged with the host's directory of the same path."""

    def __init__(self, guest: Directory, path: str = "") -> None:
        super().__init__(0o555)
        self._guest = guest
        self._path = path
        if path.split("/")[0] == _SYSCTLS:
            self.remove_errno = SysctlDirectory.remove_errno
        self._guest_nodes: dict[str, Node | None] = {}  # those from which nodes were made
        if not path:
            self.add(HOST, Directory(0o555))

    def _host(self, name: str) -> str:
        """Return the path of the host's file, as the daemon sees it."""
        return os.path.join("/proc", self._path, name)

    def _guest_node(self, name: str) -> Node | None:
        """Return the guest's node, or None if there is none, or if the host's takes precedence.

        That is so for processes of the host, which are tasks of the guest only during a system call.
        """
        if not self._path and name.isdecimal() and os.path.lexists(self._host(name)):
            return None
        return self._guest.lookup(name)

    def names(self) -> Iterable[str]:
        guest = dict.fromkeys(self._guest.entries())
        yield from guest
        try:
            yield from (name for name in os.listdir(self._host("")) if name not in guest)
        except OSError:
            return  # the host has no such directory

    def exists(self, name: str) -> bool:
        return self._guest.lookup(name) is not None or os.path.lexists(self._host(name))

    def lookup(self, name: str) -> Node | None:
        # The guest's file may have been added, removed or replaced since the node was made.
        made = self._made.get(name)
        if made is not None and self._guest_nodes.get(name) is not self._guest_node(name):
            self._end_made(name, made)
        return super().lookup(name)

    def make(self, name: str) -> Node:
        node = self._guest_nodes[name] = self._guest_node(name)
        path = os.path.join(self._path, name)
        if isinstance(node, File):
            return _GuestFile(node)
        if isinstance(node, Symlink):
            return Symlink(node.target)
        if isinstance(node, Directory):
            return ProcView(node, path)
        if path.split("/")[0] != _SYSCTLS:
            up = "../" * len(path.split("/")[1:])
            return Symlink(f"{up}{HOST}/{path}")
        if os.path.isdir(self._host(name)):
            return ProcView(Directory(0o555), path)
        return _host_sysctl(self._host(name))
