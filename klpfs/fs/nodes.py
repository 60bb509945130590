# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree that a mount shows: nodes, directories, and the base classes of files and open files.

A `Directory` holds nodes by name; a `File` returns a `Handle` for each open(2). Files of text are in
`klpfs.fs.attributes`, files that behave like devices in `klpfs.fs.streams`, and directories whose
entries are computed in `klpfs.fs.dynamic`.

Errors are raised as `OSError` with an errno. Nothing here depends on FUSE. The code that presents the
tree subscribes to `Root.on_added` and `Root.on_removed`.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

PAGE_SIZE = 4096
NAME_MAX = 1024
"""The maximum length of a file name in bytes: FUSE_NAME_MAX. Sysfs itself has no limit."""
ROOT_INO = 1

_inode_numbers = itertools.count(ROOT_INO + 1)  # 64 bits: none is ever used twice

POLL_READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
"""The poll(2) events of a file that never blocks (DEFAULT_POLLMASK)."""


class Caller(NamedTuple):
    """The process that makes a request: its thread id, and its file system user and group ids."""

    pid: int
    uid: int
    gid: int


class Node:
    """Anything with an inode.

    ``alive`` is false once the node, or a directory above it, was removed.
    ``attached`` is true if a directory holds the node by name, so that its removal is announced. The
    nodes that a `klpfs.fs.dynamic.DynamicDirectory` makes on demand are not attached.
    ``cacheable`` is true if the attributes of the node change only through the mount.
    """

    size = 0
    cacheable = True
    nlink = 1

    def __init__(self, mode: int) -> None:
        self.ino = next(_inode_numbers)
        self.mode = mode
        self.atime_ns = self.mtime_ns = self.ctime_ns = time.time_ns()
        self.parent: Directory | None = None
        self.alive = True
        self.attached = False
        self._uid: int | None = None
        self._gid: int | None = None

    @property
    def root(self) -> Root | None:
        """The root of the tree, or None while the node is not part of one."""
        node: Node = self
        while node.parent is not None:
            node = node.parent
        return node if isinstance(node, Root) else None

    @property
    def uid(self) -> int:
        """The owner: that of the tree, unless chown(2) changed it."""
        if self._uid is None:
            return root.uid if (root := self.root) else 0
        return self._uid

    @uid.setter
    def uid(self, uid: int) -> None:
        self._uid = uid

    @property
    def gid(self) -> int:
        """The group: that of the tree, unless chown(2) changed it."""
        if self._gid is None:
            return root.gid if (root := self.root) else 0
        return self._gid

    @gid.setter
    def gid(self, gid: int) -> None:
        self._gid = gid

    def _end(self) -> None:
        """Mark the node as removed."""
        self.alive = self.attached = False


NodeT = TypeVar("NodeT", bound=Node)


class Directory(Node):
    """Nodes by name, in the order in which they were added.

    ``create_errno`` is the error of creat(2), ``make_errno`` that of all other calls which make a name
    (mkdir, mknod, symlink, link, rename), and ``remove_errno`` that of unlink(2) and rmdir(2). By
    default they are the errors that root gets from sysfs.
    """

    create_errno = errno.EACCES
    make_errno = errno.EPERM
    remove_errno = errno.EPERM

    def __init__(self, mode: int = 0o755) -> None:
        super().__init__(stat.S_IFDIR | mode)
        self._children: dict[str, Node] = {}
        self._subdirectories = 0

    @property
    def nlink(self) -> int:  # type: ignore[override]
        """Two, and one for each subdirectory (kernfs_refresh_inode(), fs/kernfs/inode.c)."""
        return 2 + self._subdirectories

    def add(self, name: str, node: NodeT) -> NodeT:
        """Add ``node`` to the directory as ``name``, and return it.

        Raise `FileExistsError` if the name is taken, and `ValueError` if it is not a valid file name
        or if the node is, or was, in a tree.
        """
        size = len(os.fsencode(name))
        if name in ("", ".", "..") or "/" in name or "\0" in name or size > NAME_MAX:
            raise ValueError(f"not a file name: {name!r}")
        if node.parent is not None or not node.alive:
            raise ValueError(f"the node for {name!r} is, or was, elsewhere")
        if name in self._children:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        self._children[name] = node
        node.parent = self
        node.attached = True
        if isinstance(node, Directory):
            self._subdirectories += 1
        if root := self.root:
            root.announce(root.on_added, self, name, node)
        return node

    def remove(self, name: str) -> None:
        """Remove the node that was added as ``name``, and all nodes below it.

        Raise `FileNotFoundError` if there is none.
        """
        node = self._children.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if isinstance(node, Directory):
            node.clear()
            self._subdirectories -= 1
        del self._children[name]
        self._end_child(name, node)

    def clear(self) -> None:
        """Remove every node that was added."""
        for name in list(self._children):
            self.remove(name)

    def _end_child(self, name: str, node: Node) -> None:
        """Mark a child as removed, and announce that."""
        node._end()
        if root := self.root:
            root.announce(root.on_removed, self, name, node)

    def lookup(self, name: str) -> Node | None:
        """Return the node called ``name``, or None."""
        return self._children.get(name)

    def entries(self) -> Iterable[str]:
        """Return the names, in any order. A name may be gone when it is looked up."""
        return self._children

    def find(self, path: str) -> Node:
        """Return the node at a relative path. Symbolic links are not followed.

        Raise `FileNotFoundError` or `NotADirectoryError`.
        """
        node: Node = self
        for name in path.split("/"):
            if not isinstance(node, Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            found = node.lookup(name)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = found
        return node


class ProcDirectory(Directory):
    """A directory of /proc."""

    create_errno = make_errno = errno.ENOENT


Listener = Callable[[Directory, str, Node], None]


class Root(Directory):
    """The root of a tree, with the owner of the tree and the listeners for its changes.

    Listeners are called after a change, with the directory, the name and the node. The removal of a
    directory is announced after that of its contents. When a directory is added, its contents are not
    announced.
    """

    def __init__(self, uid: int = 0, gid: int = 0, mode: int = 0o755) -> None:
        super().__init__(mode)
        self.ino = ROOT_INO
        self.attached = True
        self.uid = uid
        self.gid = gid
        self.on_added: list[Listener] = []
        self.on_removed: list[Listener] = []
        self.on_end: list[Callable[[], None]] = []
        """Called when the mount ends, to end the operations that cannot be cancelled."""

    def end(self) -> None:
        """Announce that the mount ends."""
        for listener in self.on_end:
            listener()

    @staticmethod
    def announce(listeners: list[Listener], directory: Directory, name: str, node: Node) -> None:
        """Call all ``listeners``."""
        for listener in listeners:
            listener(directory, name, node)


class Symlink(Node):
    """A symbolic link.

    ``target`` may be a function that returns it, or raises `OSError`.
    ``size`` is by default the length of the target.
    """

    def __init__(self, target: str | Callable[[], str], size: int | None = None) -> None:
        super().__init__(stat.S_IFLNK | 0o777)
        self._target = target
        self.size = len(os.fsencode(self.target)) if size is None else size

    @property
    def target(self) -> str:
        """The path that the link contains. Raise `OSError` if it cannot be told."""
        return self._target if isinstance(self._target, str) else self._target()


class Handle:
    """An open file. The methods are the file operations; the defaults are those of a file without them.

    `read`, `write` and `flush` run as trio tasks. They are cancelled when the caller has a signal
    pending, and the caller gets EINTR. Code that a signal must not end (in a kernel, a sleep in
    TASK_UNINTERRUPTIBLE) belongs under ``trio.CancelScope(shield=True)``.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    async def read(self, caller: Caller, offset: int, size: int) -> bytes | memoryview:
        """Return at most ``size`` bytes, none at the end of the file. Raise `OSError`."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        """Return how many bytes of ``data`` were written. Raise `OSError`."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    async def flush(self, caller: Caller) -> None:
        """Handle the close(2) of one descriptor of this open file, which gets any `OSError`.

        Others may follow: a shell duplicates a descriptor with dup2(2) and closes the original.
        """

    def release(self) -> None:
        """Handle the end of the open file: its last descriptor was closed."""

    def poll(self, notify: Callable[[], None] | None) -> int:
        """Return the current poll(2) events (select.POLLIN ...).

        Call ``notify``, if given, once when they change. It replaces an earlier ``notify``.
        """
        return POLL_READY


class File(Node, ABC):
    """A regular file.

    ``fsync_errno`` is the result of fsync(2), 0 for success.
    ``mappable`` is true if the file can be mapped as a whole. Its size must be exact then, and the
    kernel caches the contents until the next open.
    ``immediate`` is true if reading never blocks and has no side effects.
    """

    fsync_errno = errno.EINVAL
    mappable = False
    immediate = False

    @abstractmethod
    def open(self, caller: Caller, flags: int) -> Handle:
        """Return a handle for one open(2) with these flags (os.O_*). Raise `OSError`.

        The node is alive, and the mode bits have been checked.
        """
