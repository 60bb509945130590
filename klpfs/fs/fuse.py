# SPDX-License-Identifier: GPL-2.0-or-later
"""FUSE: requests are translated into calls on the tree, and the results into answers.

The only file that imports pyfuse3. The kernel may cache names and attributes without limit, because
every change is announced to it (`FileSystem.run`). The names that a dynamic directory computes are not
cached.

pyfuse3 reports which process opens a file, but not which one reads or writes it. So the methods of a
`Handle` are called with the process that opened the file.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio

from klpfs.fs.caller import TaskDied
from klpfs.fs.errors import user_errno
from klpfs.fs.inodes import InodeTable, Invalidations, Stale
from klpfs.fs.interrupt import Interrupts, kill_caller
from klpfs.fs.nodes import PAGE_SIZE, Caller, Directory, File, Handle, Node, Root, Symlink
from klpfs.fs.workers import WorkerTrio, call_if_blocked

log = logging.getLogger(__name__)

FOREVER = 365 * 86400.0
"""Seconds for which the kernel may cache what is announced when it changes."""
MAX_SIZE = (1 << 31) - 1
"""The largest size for truncate(2), which changes nothing (MAX_NON_LFS, s_maxbytes of sysfs)."""
MAX_WORKERS = 1_000_000
"""The requests that are served at once: enough that readers which block never block the mount."""

workers = WorkerTrio()
pyfuse3.trio = workers  # type: ignore[attr-defined]

P = ParamSpec("P")
T = TypeVar("T")


def request_handler(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let a method answer a request: its exceptions become errnos, and others are served if it blocks.

    An exception other than `OSError` and `MemoryError` is logged, and becomes EIO.
    """

    @functools.wraps(method)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call_if_blocked(method(*args, **kwargs), workers.wake_next)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            raise pyfuse3.FUSEError(user_errno(error.errno)) from None
        except MemoryError:  # most likely the guest's memory
            raise pyfuse3.FUSEError(errno.ENOMEM) from None
        except Exception:
            log.exception("%s failed", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return answer


def refuse(number: int) -> NoReturn:
    """Answer the request with an errno."""
    raise pyfuse3.FUSEError(number)


def caller_of(ctx: pyfuse3.RequestContext) -> Caller:
    """Return the process that sent a request."""
    return Caller(ctx.pid, ctx.uid, ctx.gid)


def attributes(node: Node) -> pyfuse3.EntryAttributes:
    """Return the attributes of a node, and how long the kernel may cache them and the name."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = node.ino
    entry.st_mode = node.mode
    entry.st_nlink = node.nlink
    entry.st_uid = node.uid
    entry.st_gid = node.gid
    entry.st_size = node.size
    entry.st_blksize = PAGE_SIZE
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = (
        node.atime_ns,
        node.mtime_ns,
        node.ctime_ns,
    )
    entry.entry_timeout = FOREVER if node.attached else 0
    entry.attr_timeout = FOREVER if node.attached and node.cacheable else 0
    return entry


class OpenFile:
    """An open file: its handle, the process that opened it, and the inode number at that time."""

    __slots__ = ("caller", "handle", "has_flush", "immediate", "ino", "poll_handle")

    def __init__(self, handle: Handle, caller: Caller, file: File) -> None:
        self.handle = handle
        self.caller = caller
        self.ino = file.ino
        self.immediate = file.immediate
        self.has_flush = type(handle).flush is not Handle.flush
        self.poll_handle: pyfuse3.PollHandle | None = None

    def notify(self) -> None:
        """Wake the processes that wait in poll(2)."""
        poll_handle, self.poll_handle = self.poll_handle, None
        if poll_handle is not None:
            poll_handle.notify()


class OpenDirectory:
    """An open directory, and the names that it had at the first readdir(2)."""

    __slots__ = ("directory", "names")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.names: list[str] = []


class FileSystem(pyfuse3.Operations):
    """The operations on one mount of one tree.

    `run` must run beside ``pyfuse3.main``.
    """

    supports_dot_lookup = False

    def __init__(self, root: Root) -> None:
        super().__init__()
        self._root = root
        self._inodes = InodeTable(root)
        self._cached_attributes: dict[int, pyfuse3.EntryAttributes] = {}
        self._invalidations = Invalidations(invalidate)
        self._interrupts = Interrupts()
        self._numbers = itertools.count(1)
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        root.on_added.append(self._added)
        root.on_removed.append(self._removed)

    def close(self) -> None:
        """Unsubscribe from the tree, and release all open files."""
        self._root.on_added.remove(self._added)
        self._root.on_removed.remove(self._removed)
        for number in list(self._files):
            self._release(number)

    async def run(self) -> None:
        """Send invalidations to the kernel, and watch for interrupted callers, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._interrupts.run)
            await self._invalidations.run()

    async def settle(self) -> None:
        """Wait, for a second at most, until the kernel has invalidated its caches."""
        await self._invalidations.settle()

    # -- the caches of the kernel -----------------------------------------------------------------

    def _added(self, directory: Directory, name: str, node: Node) -> None:
        # The kernel caches no names that do not exist, but the number of subdirectories.
        if isinstance(node, Directory) and directory.ino in self._inodes:
            self._invalidate(directory.ino, None)

    def _removed(self, directory: Directory, name: str, node: Node) -> None:
        self._cached_attributes.pop(node.ino, None)
        if directory.ino in self._inodes:
            if node.ino in self._inodes:
                self._invalidate(directory.ino, name)
            if isinstance(node, Directory):
                self._invalidate(directory.ino, None)

    def _invalidate(self, ino: int, name: str | None) -> None:
        self._cached_attributes.pop(ino, None)
        self._invalidations.add(ino, name)

    def _node(self, ino: int) -> Node:
        node = self._inodes.get(ino)
        if node is None:
            refuse(errno.ESTALE)
        return node

    def _directory(self, ino: int) -> Directory:
        node = self._node(ino)
        if not isinstance(node, Directory):
            refuse(errno.ENOTDIR)
        return node

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        """Return `attributes` of a node, from our cache if the kernel may cache them too."""
        entry = self._cached_attributes.get(node.ino)
        if entry is None:
            entry = attributes(node)
            if entry.attr_timeout and node.ino in self._inodes:
                self._cached_attributes[node.ino] = entry
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            self._inodes.forget(ino, count)
            if ino not in self._inodes:
                self._cached_attributes.pop(ino, None)

    # -- names and attributes ---------------------------------------------------------------------

    @request_handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self._directory(parent_inode)
        node = directory.lookup(os.fsdecode(name)) if directory.alive else None
        if node is None:
            refuse(errno.ENOENT)
        self._inodes.add_lookup(node)
        return self._attributes(node)

    @request_handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(self._node(inode))

    @request_handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        # kernfs_iop_setattr(), fs/kernfs/inode.c. The kernel has checked the permissions. Truncation
        # succeeds and does nothing, because a shell truncates the file for ``>``.
        node = self._node(inode)
        if fields.update_size and attr.st_size > MAX_SIZE:
            refuse(errno.EFBIG)
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_uid:
            node.uid = attr.st_uid
        if fields.update_gid:
            node.gid = attr.st_gid
        if fields.update_atime:
            node.atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            node.mtime_ns = attr.st_mtime_ns
        node.ctime_ns = time.time_ns()
        self._cached_attributes.pop(inode, None)
        return self._attributes(node)

    @request_handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        node = self._node(inode)
        if not isinstance(node, Symlink):
            refuse(errno.EINVAL)
        return os.fsencode(node.target)

    @request_handler
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return True  # with default_permissions, the kernel has checked

    @request_handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        answer = pyfuse3.StatvfsData()  # simple_statfs(), fs/libfs.c
        answer.f_bsize = answer.f_frsize = PAGE_SIZE
        answer.f_namemax = 255
        return answer

    @request_handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return []

    # getxattr, setxattr and removexattr are not implemented. So the kernel returns EOPNOTSUPP by
    # itself, and does not ask for security.capability each time a file is truncated.

    # -- making and removing names: refused, with the errors that root gets from sysfs and proc ---

    @request_handler
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        refuse(self._directory(parent_inode).create_errno)

    @request_handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self._directory(parent_inode)
        refuse(directory.create_errno if stat.S_ISREG(mode) else directory.make_errno)

    @request_handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        refuse(self._directory(parent_inode).make_errno)

    @request_handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        refuse(self._directory(parent_inode).make_errno)

    @request_handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        refuse(self._directory(new_parent_inode).make_errno)

    @request_handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags:  # kernfs_iop_rename(), fs/kernfs/dir.c
            refuse(errno.EINVAL)
        refuse(self._directory(parent_inode_new).make_errno)

    @request_handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        refuse(self._directory(parent_inode).remove_errno)

    @request_handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        refuse(self._directory(parent_inode).remove_errno)

    # -- open files -------------------------------------------------------------------------------

    @request_handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if not node.alive:
            refuse(errno.ENODEV)  # kernfs_fop_open(), fs/kernfs/file.c
        if not isinstance(node, File):
            refuse(errno.EINVAL)
        caller = caller_of(ctx)
        handle = node.open(caller, flags)
        if flags & os.O_DIRECT:  # do_dentry_open(), fs/open.c: there is no direct I/O
            handle.release()
            refuse(errno.EINVAL)
        number = next(self._numbers)
        self._files[number] = OpenFile(handle, caller, node)
        # Without the page cache, because the contents are made when they are read; but mmap(2) needs
        # the page cache.
        cached = node.mappable and flags & os.O_ACCMODE == os.O_RDONLY
        return pyfuse3.FileInfo(fh=number, direct_io=not cached, keep_cache=False)

    @request_handler
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        file = self._files[fh]
        if file.immediate:
            return await file.handle.read(file.caller, off, size)
        try:
            with self._interrupts.operation(file.caller.pid, file.ino):
                return await file.handle.read(file.caller, off, size)
        except TaskDied as death:
            await kill_caller(file.caller.pid, file.ino, death.signal)
            raise
        finally:
            await self.settle()  # a read of machine/syscall can change the tree

    @request_handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self._files[fh]
        try:
            with self._interrupts.operation(file.caller.pid, file.ino):
                return await file.handle.write(file.caller, off, buf)
        except TaskDied as death:
            await kill_caller(file.caller.pid, file.ino, death.signal)
            raise
        finally:
            await self.settle()

    @request_handler
    async def flush(self, fh: int) -> None:
        file = self._files[fh]
        if not file.has_flush:  # the usual case, and every close(2) comes here
            return
        try:
            with self._interrupts.operation(file.caller.pid, file.ino, closing=True):
                await file.handle.flush(file.caller)
        finally:
            await self.settle()

    @request_handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        node = self._files[fh].handle.node
        if isinstance(node, File) and node.fsync_errno:
            refuse(node.fsync_errno)

    @request_handler
    async def poll(
        self,
        inode: int,
        fh: int,
        poll_handle: pyfuse3.PollHandle | None,
        ctx: pyfuse3.RequestContext,
    ) -> int:
        file = self._files[fh]
        if poll_handle is not None:
            file.poll_handle = poll_handle
        return file.handle.poll(file.notify if poll_handle is not None else None)

    @request_handler
    async def release(self, fh: int) -> None:
        self._release(fh)

    def _release(self, number: int) -> None:
        file = self._files.pop(number)
        file.poll_handle = None
        file.handle.release()

    # -- open directories -------------------------------------------------------------------------

    @request_handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        number = next(self._numbers)
        self._directories[number] = OpenDirectory(self._directory(inode))
        return number

    @request_handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        opened = self._directories[fh]
        directory = opened.directory
        if start_id == 0:
            opened.names = list(directory.entries()) if directory.alive else []
        dots = [(b".", directory), (b"..", directory.parent or directory)]
        for index, (dot, node) in enumerate(dots[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, dot, self._attributes(node), index):
                return
        position = max(start_id, len(dots))
        for index in range(position - len(dots), len(opened.names)):
            name = opened.names[index]
            child = directory.lookup(name) if directory.alive else None
            if child is None:
                continue
            entry = self._attributes(child)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, index + len(dots) + 1):
                return
            self._inodes.add_lookup(child)

    @request_handler
    async def releasedir(self, fh: int) -> None:
        del self._directories[fh]

    @request_handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        refuse(errno.EINVAL)


def invalidate(stale: Sequence[Stale]) -> None:
    """Make the kernel drop cached names, or, where there is no name, cached attributes."""
    for ino, name in stale:
        try:
            if name is None:
                pyfuse3.invalidate_inode(ino, attr_only=True)
            else:
                pyfuse3.invalidate_entry(ino, os.fsencode(name))
        except FileNotFoundError:
            pass  # it was not cached
        except OSError:
            log.exception("the kernel did not forget %r in inode %d", name, ino)


def mount(root: Root, mountpoint: str, allow_other: bool) -> FileSystem:
    """Mount a tree. Requests are answered by `serve`.

    Raise `RuntimeError` if libfuse refuses. It, or fusermount3, has then written the reason to file
    descriptor 2.
    """
    # No program of the guest is run on the host, and no device of its is one of the host.
    options = {
        "fsname=klpfs", "subtype=klpfs", "default_permissions", "nosuid", "nodev", "noexec",
    }  # fmt: skip
    if allow_other:
        options.add("allow_other")
    system = FileSystem(root)
    try:
        pyfuse3.init(system, mountpoint, options)
    except BaseException:
        system.close()
        raise
    return system


async def serve(system: FileSystem) -> None:
    """Answer requests until the connection ends, or until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(system.run)
        await pyfuse3.main(min_tasks=1, max_tasks=MAX_WORKERS)
        nursery.cancel_scope.cancel()


def unmount(system: FileSystem, *, detach: bool) -> None:
    """End the connection. With ``detach``, also remove the mount, even if files are open."""
    system.close()
    pyfuse3.close(unmount=detach)
