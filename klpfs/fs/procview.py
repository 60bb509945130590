# SPDX-License-Identifier: GPL-2.0-or-later
"""``machine/procview``: what a program under `klpfs.running.run` sees as /proc.

The guest's files, and for everything else a link to the host's: its procfs is mounted on ``.host``, in
the mount namespace of that program and nowhere else. Procfs itself cannot be extended, and nothing may
be stacked on it; a link keeps what it can do and no other file system can, as in ``self/fd``. The
host's sysctls have no such magic, and sysctl(8) minds links: they are files here, for reading only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from klpfs.fs.nodes import (
    Caller,
    Directory,
    DynamicDirectory,
    File,
    Handle,
    Node,
    ProcDirectory,
    Symlink,
)
from klpfs.fs.sysctl import Sysctl, SysctlDirectory

HOST = ".host"
"""Where the host's procfs is to be mounted."""
_SYSCTLS = "sys"


class _Same(File):
    """A file of the guest, once more."""

    def __init__(self, origin: File) -> None:
        super().__init__(origin.mode)
        self.origin = origin
        self.size = origin.size

    def open(self, caller: Caller, flags: int) -> Handle:
        return self.origin.open(caller, flags)


def _host_sysctl(path: str) -> Sysctl:
    async def show(_caller: Caller) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    return Sysctl(show, mode=os.stat(path).st_mode & 0o444)


class ProcView(DynamicDirectory, ProcDirectory):
    """A directory of the guest's proc, together with the host's of that path."""

    def __init__(self, guest: Directory, path: str = "") -> None:
        super().__init__(0o555)
        self._guest = guest
        self._path = path
        if path.split("/")[0] == _SYSCTLS:
            self.remove_errno = SysctlDirectory.remove_errno
        self._origins: dict[str, Node | None] = {}
        if not path:
            self.add(HOST, Directory(0o555))

    def _host(self, name: str) -> str:
        """The host's file of that name. The process that serves the mount sees it in /proc."""
        return os.path.join("/proc", self._path, name)

    def _origin(self, name: str) -> Node | None:
        """The guest's node. A process of the host is a task of the guest only while it is inside; what
        is known of it is the host's."""
        if not self._path and name.isdecimal() and os.path.lexists(self._host(name)):
            return None
        return self._guest.lookup(name)

    def names(self) -> Iterable[str]:
        guest = dict.fromkeys(self._guest.entries())
        yield from guest
        try:
            yield from (name for name in os.listdir(self._host("")) if name not in guest)
        except OSError:
            return  # the guest alone has it

    def exists(self, name: str) -> bool:
        return self._guest.lookup(name) is not None or os.path.lexists(self._host(name))

    def lookup(self, name: str) -> Node | None:
        # The guest may have got a file of that name, or another one, since it was asked for.
        made = self._made.get(name)
        if made is not None and self._origins.get(name) is not self._origin(name):
            del self._made[name]
            self._announce_end(name, made)
        return super().lookup(name)

    def make(self, name: str) -> Node:
        origin = self._origins[name] = self._origin(name)
        path = os.path.join(self._path, name)
        if isinstance(origin, File):
            return _Same(origin)
        if isinstance(origin, Symlink):
            return Symlink(origin.target)
        if isinstance(origin, Directory):
            return ProcView(origin, path)
        if path.split("/")[0] != _SYSCTLS:
            up = "../" * len(path.split("/")[1:])
            return Symlink(f"{up}{HOST}/{path}")
        if os.path.isdir(self._host(name)):
            return ProcView(Directory(0o555), path)
        return _host_sysctl(self._host(name))
