# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree: what a mount shows, as plain objects.

A `Directory` holds nodes by name; a `File` gives every open its own `Handle`. An `Attribute` is a
sysfs file: text that ``show`` makes and ``store`` takes. A `ProcFile` is the same with the manners
of /proc. Whatever else behaves like a device is a `Stream`.

Errors travel as `OSError` with an errno. Nothing here knows FUSE; who presents the tree listens to
`Root.on_added` and `Root.on_removed`.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import stat
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

PAGE_SIZE = 4096
NAME_MAX = 1024
"""FUSE_NAME_MAX, in bytes: the limit that names have here. Sysfs has none, FUSE that one."""
ROOT_INO = 1

_inode_numbers = itertools.count(ROOT_INO + 1)  # 64 bits: none is ever used twice

POLL_READY = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
"""What poll(2) says of a file that never blocks (DEFAULT_POLLMASK)."""


class Caller(NamedTuple):
    """Who asks: the thread id, and the user and group ids it acts with."""

    pid: int
    uid: int
    gid: int


Show = Callable[[Caller], Awaitable[bytes]]
Store = Callable[[Caller, bytes], Awaitable[None]]


class Node:
    """Anything with an inode.

    ``alive`` is false once the node, or a directory above it, was removed. ``attached`` says that a
    directory holds the node by name, so that its removal will be announced; a name that is made up
    on demand (`DynamicDirectory`) is not attached. ``steady`` says that what stat(2) says of the node
    changes only when somebody changes it through the mount.
    """

    size = 0
    steady = True
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
        """The node is no more, and neither is what is below it."""
        self.alive = self.attached = False


AnyNode = TypeVar("AnyNode", bound=Node)


class Directory(Node):
    """Nodes by name, in the order in which they came.

    A subclass that computes its entries overrides `lookup` and `entries`, and does best to start
    from `DynamicDirectory`, which keeps inode numbers stable.

    ``create_errno`` answers creat(2), ``make_errno`` everything else that would bring a new name
    (mkdir, mknod, symlink, link, rename), ``remove_errno`` unlink(2) and rmdir(2), as sysfs answers
    root.
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
        """Two and one for each directory in it (kernfs_refresh_inode(), fs/kernfs/inode.c)."""
        return 2 + self._subdirectories

    def add(self, name: str, node: AnyNode) -> AnyNode:
        """Make ``node`` known here as ``name``; gives it back.

        Raises `FileExistsError` if the name is taken, `ValueError` if it cannot be a name or the
        node is, or was, in a tree.
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
        """Take ``name`` away with all that is below it.

        Raises `FileNotFoundError` if there is no such entry (of those that were added).
        """
        node = self._children.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if isinstance(node, Directory):
            node.clear()
            self._subdirectories -= 1
        del self._children[name]
        self._announce_end(name, node)

    def clear(self) -> None:
        """Remove every entry that was added."""
        for name in list(self._children):
            self.remove(name)

    def _announce_end(self, name: str, node: Node) -> None:
        node._end()
        if root := self.root:
            root.announce(root.on_removed, self, name, node)

    def lookup(self, name: str) -> Node | None:
        """The node called ``name``, or None."""
        return self._children.get(name)

    def entries(self) -> Iterable[str]:
        """The names, in no order that anybody may rely on; each may be gone when looked up."""
        return self._children

    def find(self, path: str) -> Node:
        """The node at a relative path, symbolic links not followed.

        Raises `FileNotFoundError` or `NotADirectoryError`.
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


class DynamicDirectory(Directory, ABC):
    """A directory that knows which names it has without holding a node for each.

    The node of a name is made when somebody asks, and is the same one, with the same inode number,
    for as long as anybody remembers it and the name exists. Nodes may also be added, as in any
    directory; they come first. Names that come and go need not be announced: nobody caches them.
    """

    def __init__(self, mode: int = 0o555) -> None:
        super().__init__(mode)
        self._made: weakref.WeakValueDictionary[str, Node] = weakref.WeakValueDictionary()

    @abstractmethod
    def names(self) -> Iterable[str]:
        """The names there are now."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a name now; called at every lookup, so it should be quick."""

    @abstractmethod
    def make(self, name: str) -> Node:
        """A new node for a name that exists; a `Directory` comes with what is in it."""

    def lookup(self, name: str) -> Node | None:
        if (child := super().lookup(name)) is not None:
            return child
        node = self._made.get(name)
        if self.exists(name):
            if node is None:
                node = self._made[name] = self.make(name)
                node.parent = self
            return node
        if node is not None:
            del self._made[name]
            if isinstance(node, Directory):
                node.clear()
            self._announce_end(name, node)
        return None

    def entries(self) -> Iterable[str]:
        names = list(self.names())
        # Whoever remembers names of old (as the kernel does, if nobody looks them up again) hears
        # that they have gone: processes come and go without end.
        for name in set(self._made) - set(names):
            self.lookup(name)
        yield from super().entries()
        yield from names


Listener = Callable[[Directory, str, Node], None]


class Root(Directory):
    """The top of a tree, which knows its owner and who wants to hear of changes.

    Listeners are called with the directory, the name and the node, after the change. Where a
    directory goes, what is in it goes first; where one comes, it alone is announced.
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
        """Called when nobody is answered any more: operations that cannot be cancelled are to end."""

    def end(self) -> None:
        """The mount ends."""
        for listener in self.on_end:
            listener()

    @staticmethod
    def announce(listeners: list[Listener], directory: Directory, name: str, node: Node) -> None:
        for listener in listeners:
            listener(directory, name, node)


class Symlink(Node):
    """A symbolic link; ``size`` is the length of its target where none is given."""

    def __init__(self, target: str, size: int | None = None) -> None:
        super().__init__(stat.S_IFLNK | 0o777)
        self.target = target
        self.size = len(os.fsencode(target)) if size is None else size


class Handle:
    """One open file. What a subclass does not override is answered as by a file without it.

    `read`, `write` and `flush` run as trio tasks, and are cancelled when the caller has a signal to
    take, who then gets EINTR. Put what a signal must not end (what sleeps TASK_UNINTERRUPTIBLE in a
    kernel) under ``trio.CancelScope(shield=True)``.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    async def read(self, caller: Caller, offset: int, size: int) -> bytes | memoryview:
        """At most ``size`` bytes; none at the end."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        """How many bytes of ``data`` were taken."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    async def flush(self, caller: Caller) -> None:
        """A descriptor for this open was closed; an error is the result of that close(2).

        A duplicate may live on (a shell closes the original after dup2), so more may follow.
        """

    def release(self) -> None:
        """The last descriptor is gone."""

    def poll(self, notify: Callable[[], None] | None) -> int:
        """The events that hold now (select.POLLIN ...); ``notify`` is to be called, once, when that
        changes, if there is one. Overrides an earlier ``notify`` of this handle."""
        return POLL_READY


class File(Node, ABC):
    """A regular file. ``fsync_errno`` answers fsync(2), 0 being success.

    ``mappable`` says that a program may map it as a whole, for which its size must be true; then the
    kernel keeps what was read until the next open. ``at_once`` says that to read it never waits for
    anything, and changes nothing.
    """

    fsync_errno = errno.EINVAL
    mappable = False
    at_once = False

    @abstractmethod
    def open(self, caller: Caller, flags: int) -> Handle:
        """A handle for one open(2) with these flags (os.O_*). The node is alive, and its mode bits
        have been checked.

        Raises `OSError`.
        """


class Attribute(File):
    """A text file of sysfs (fs/sysfs/file.c over fs/kernfs/file.c).

    ``show`` makes the text, ``store`` takes what one write(2) brought, at most a page of it.
    ``mode`` follows from the two where it is not given.
    """

    size = PAGE_SIZE
    fsync_errno = 0
    limit: int | None = PAGE_SIZE
    """How much one write may bring; a longer one is a short write."""
    checked_on_open = True
    """Whether even root is refused (EACCES) what no bit of the mode allows to anybody."""
    unable_errno = errno.EIO
    """The answer to a read or write that the file does not do, where open let it pass: in sysfs,
    after chmod(2)."""

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
    """A text file of /proc (fs/proc/generic.c, fs/seq_file.c): no size, no page limit, no check on
    open beyond the mode bits, EIO from what it cannot do."""

    size = 0
    fsync_errno = errno.EINVAL
    limit = None
    checked_on_open = False


class _AttributeHandle(Handle):
    """An open `Attribute`: reads that follow one another see one text, as through seq_file."""

    node: Attribute

    def __init__(self, node: Attribute) -> None:
        super().__init__(node)
        self._text = b""
        self._position = 0
        self._was_read = False

    async def read(self, caller: Caller, offset: int, size: int) -> bytes | memoryview:
        node = self.node
        # seq_read_iter(), fs/seq_file.c: any read but one that goes on where the last one ended
        # makes the text anew.
        if offset == 0 or offset != self._position:
            self._position = 0
            if not node.alive:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            if node.show is None:
                raise OSError(node.unable_errno, os.strerror(node.unable_errno))
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
            raise OSError(node.unable_errno, os.strerror(node.unable_errno))
        data = data[: node.limit]
        if data:
            await node.store(caller, data)
        return len(data)

    def poll(self, notify: Callable[[], None] | None) -> int:
        # kernfs_fop_poll(), fs/kernfs/file.c: there is news until the first read, and at the end.
        if self.node.checked_on_open and not (self._was_read and self.node.alive):
            return POLL_READY | select.POLLERR | select.POLLPRI
        return POLL_READY


class Stream(File):
    """A file whose handles do the work: ``opener`` makes one for each open(2), or raises `OSError`.

    For blocking files, binary ones, and those that collect what they are given. ``size`` is what
    stat(2) says, in bytes, or a function that knows it.
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
        self.steady = isinstance(size, int)

    @property
    def size(self) -> int:  # type: ignore[override]
        return self._size if isinstance(self._size, int) else self._size()

    def open(self, caller: Caller, flags: int) -> Handle:
        return self._opener(self, caller, flags)


class Upload(Stream):
    """A file to copy something into: ``take`` gets all of it when the writer closes the file.

    An error of ``take`` is the result of that close(2). More than ``limit`` bytes are refused with
    EFBIG; a file so refused is not taken.
    """

    def __init__(
        self,
        take: Callable[[Caller, bytes], Awaitable[None]],
        mode: int = 0o200,
        limit: int = 64 << 20,
    ) -> None:
        super().__init__(lambda node, caller, flags: _UploadHandle(node, take, limit), mode)


class _UploadHandle(Handle):
    def __init__(
        self, node: Node, take: Callable[[Caller, bytes], Awaitable[None]], limit: int
    ) -> None:
        super().__init__(node)
        self._take = take
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
        # A shell's redirection closes the original descriptor before anything was written.
        if self._data:
            data, self._data = bytes(self._data), bytearray()
            await self._take(caller, data)
