# SPDX-License-Identifier: GPL-2.0-or-later
"""``machine/procview``: the directory that a program under `klpfs.running.run` sees as /proc.

It has the guest's entries. Of the host's procfs it has only what belongs to processes, files and the
network: a link for each name in `SHOWN` and for each process. Nothing else of the host appears, even if
the guest removes an entry. The host's procfs is mounted on ``.host`` in the mount namespace of that
program, and nowhere else. Procfs cannot be extended, and no file system may be stacked on it. Links keep
what only procfs can do, as in ``self/fd``. The host's sysctls are read-only files instead, because
sysctl(8) does not follow links.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from klpfs.fs.dynamic import DynamicDirectory
from klpfs.fs.nodes import Caller, Directory, File, Handle, Node, ProcDirectory, Symlink
from klpfs.fs.sysctl import Sysctl, SysctlDirectory
from klpfs.machine.kernel.proc_tree import PROCESS_LINKS, name_to_int

HOST = ".host"
"""The name of the directory on which the host's procfs is mounted."""
SHOWN = PROCESS_LINKS | {
    "cgroups", "cpuinfo", "diskstats", "locks", "partitions", "swaps", "sysvipc", "tty",
}  # fmt: skip
"""Names of the host's /proc that are shown. Guest code cannot register them."""
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


class _GuestView(DynamicDirectory, ProcDirectory):
    """A second node for a directory of the guest's proc. Subclasses add names of the host."""

    def __init__(self, guest: Directory) -> None:
        super().__init__(0o555)
        self._guest = guest
        self._sources: dict[str, Node | None] = {}
        """The guest's nodes from which nodes were made, None for the host's."""

    def _source(self, name: str) -> Node | None:
        """Return the guest's node, or None if there is none, or if the host's takes precedence."""
        return self._guest.lookup(name)

    def _host_names(self) -> Iterator[str]:
        """Yield the names of the host that are shown."""
        yield from ()

    def _shows_host(self, name: str) -> bool:
        """Return whether the host's ``name`` is shown, if the guest's is not."""
        return False

    def _make_host(self, name: str) -> Node:
        """Return a new node for a name of the host."""
        raise NotImplementedError

    def _view(self, name: str, guest: Directory) -> Node:
        """Return a new node for a directory of the guest."""
        return _GuestView(guest)

    def names(self) -> Iterable[str]:
        return dict.fromkeys([*self._guest.entries(), *self._host_names()])

    def exists(self, name: str) -> bool:
        return self._source(name) is not None or self._shows_host(name)

    def lookup(self, name: str) -> Node | None:
        # The guest's file may have been added, removed or replaced since the node was made.
        made = self._made.get(name)
        if made is not None and self._sources.get(name) is not self._source(name):
            self._end_made(name, made)
        return super().lookup(name)

    def make(self, name: str) -> Node:
        node = self._sources[name] = self._source(name)
        if isinstance(node, File):
            return _GuestFile(node)
        if isinstance(node, Symlink):
            return Symlink(lambda: node.target, node.size)
        if isinstance(node, Directory):
            return self._view(name, node)
        return self._make_host(name)


class ProcView(_GuestView):
    """The root: the guest's proc, with the processes of the host and the names ``hosts`` of its /proc."""

    def __init__(self, guest: Directory, hosts: Iterable[str] = SHOWN) -> None:
        super().__init__(guest)
        self._hosts = SHOWN.intersection(hosts)
        self.add(HOST, Directory(0o555))

    def _source(self, name: str) -> Node | None:
        # A process of the host is a task of the guest too during a system call.
        is_process = name in PROCESS_LINKS or name_to_int(name) is not None
        return None if is_process and self._shows_host(name) else super()._source(name)

    def _host_names(self) -> Iterator[str]:
        return filter(self._may_show, os.listdir("/proc"))

    def _may_show(self, name: str) -> bool:
        return name in self._hosts or name_to_int(name) is not None

    def _shows_host(self, name: str) -> bool:
        return self._may_show(name) and os.path.lexists(f"/proc/{name}")

    def _make_host(self, name: str) -> Node:
        return Symlink(f"{HOST}/{name}")

    def _view(self, name: str, guest: Directory) -> Node:
        return _SysctlView(guest, _SYSCTLS) if name == _SYSCTLS else super()._view(name, guest)


class _SysctlView(_GuestView):
    """A directory of the guest's sysctls, with those of the host that the guest lacks.

    Guest code cannot register anything here. ``path`` is relative to /proc.
    """

    remove_errno = SysctlDirectory.remove_errno

    def __init__(self, guest: Directory, path: str) -> None:
        super().__init__(guest)
        self._path = path

    def _host(self, name: str) -> str:
        """Return the path of the host's file, as the daemon sees it."""
        return os.path.join("/proc", self._path, name)

    def _host_names(self) -> Iterator[str]:
        try:
            yield from os.listdir(self._host(""))
        except OSError:
            return  # the host has no such directory

    def _shows_host(self, name: str) -> bool:
        return os.path.lexists(self._host(name))

    def _make_host(self, name: str) -> Node:
        if os.path.isdir(self._host(name)):
            return self._view(name, Directory(0o555))
        return _host_sysctl(self._host(name))

    def _view(self, name: str, guest: Directory) -> Node:
        return _SysctlView(guest, f"{self._path}/{name}")
