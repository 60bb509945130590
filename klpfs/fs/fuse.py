# SPDX-License-Identifier: GPL-2.0-or-later
"""FUSE: translates requests into calls on the tree, and back.

The only file that knows pyfuse3. The kernel may remember names and attributes for as long as it
likes, because it is told of every node that goes (`FileSystem.run`); names that are made up on
demand it must not remember at all.

pyfuse3 tells who opens a file, not who reads or writes it: a `Handle` is called with its opener.
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

from klpfs.fs.errors import user_errno
from klpfs.fs.interrupt import Interrupts
from klpfs.fs.nodes import PAGE_SIZE, ROOT_INO, Caller, Directory, File, Handle, Node, Root, Symlink
from klpfs.fs.turns import Turns, noticing

log = logging.getLogger(__name__)

FOREVER = 365 * 86400.0
"""Seconds for which the kernel may remember what will be announced when it changes."""
MAX_SIZE = (1 << 31) - 1
"""What a file may be truncated to (MAX_NON_LFS, s_maxbytes of sysfs); it stays what it is."""
MAX_TASKS = 1_000_000
"""Requests served at once: readers that block must never keep others from being served."""
SETTLE = 1.0
"""Seconds an answer waits for the kernel to forget names that the operation removed."""

turns = Turns()
pyfuse3.trio = turns  # type: ignore[attr-defined]

P = ParamSpec("P")
T = TypeVar("T")


def answers(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a request's errors errnos: of an `OSError` its own, EIO of what nobody expected. While it
    waits, others are served."""

    @functools.wraps(method)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await noticing(method(*args, **kwargs), turns.pass_on)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            raise pyfuse3.FUSEError(user_errno(error.errno)) from None
        except MemoryError:  # of the guest, most likely
            raise pyfuse3.FUSEError(errno.ENOMEM) from None
        except Exception:
            log.exception("%s failed", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return answer


def refuse(number: int) -> NoReturn:
    raise pyfuse3.FUSEError(number)


def caller_of(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.pid, ctx.uid, ctx.gid)


def attributes(node: Node) -> pyfuse3.EntryAttributes:
    """What stat(2) says of a node, and for how long the kernel may believe it."""
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
    entry.attr_timeout = FOREVER if node.attached and node.steady else 0
    return entry


class Open:
    """An open file: its handle, who opened it, and under which inode number."""

    __slots__ = ("at_once", "caller", "flushes", "handle", "ino", "waiter")

    def __init__(self, handle: Handle, caller: Caller, file: File) -> None:
        self.handle = handle
        self.caller = caller
        self.ino = file.ino
        self.at_once = file.at_once
        self.flushes = type(handle).flush is not Handle.flush
        self.waiter: pyfuse3.PollHandle | None = None

    def notify(self) -> None:
        """Wake whoever waits in poll(2)."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.notify()


class Listing:
    """An open directory: the names as they were when the listing began."""

    __slots__ = ("directory", "names")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.names: list[str] = []


class FileSystem(pyfuse3.Operations):
    """The requests of one mount, answered from one tree.

    `run` must run beside ``pyfuse3.main``.
    """

    supports_dot_lookup = False

    def __init__(self, root: Root) -> None:
        super().__init__()
        self._root = root
        self._nodes: dict[int, Node] = {ROOT_INO: root}  # those that the kernel knows
        self._lookups: dict[int, int] = {ROOT_INO: 1}  # how often it was told of each
        self._prepared: dict[int, pyfuse3.EntryAttributes] = {}  # what it may remember of some
        self._numbers = itertools.count(1)
        self._open: dict[int, Open] = {}
        self._listings: dict[int, Listing] = {}
        self._interrupts = Interrupts()
        self._stale: dict[tuple[int, str | None], None] = {}
        self._stale_work = trio.Event()
        self._settled: trio.Event | None = None
        root.on_added.append(self._added)
        root.on_removed.append(self._removed)

    def close(self) -> None:
        """Hear no more of the tree, and let go of all that is open."""
        self._root.on_added.remove(self._added)
        self._root.on_removed.remove(self._removed)
        for number in list(self._open):
            self._release(number)

    # What the kernel remembers

    def _added(self, directory: Directory, name: str, node: Node) -> None:
        # A name that was not there is not remembered, but the number of subdirectories is.
        if isinstance(node, Directory) and directory.ino in self._lookups:
            self._forget_later(directory.ino, None)

    def _removed(self, directory: Directory, name: str, node: Node) -> None:
        self._prepared.pop(node.ino, None)
        if directory.ino in self._lookups:
            if node.ino in self._lookups:
                self._forget_later(directory.ino, name)
            if isinstance(node, Directory):
                self._forget_later(directory.ino, None)

    def _forget_later(self, ino: int, name: str | None) -> None:
        self._prepared.pop(ino, None)
        self._stale[ino, name] = None
        if self._settled is None:
            self._settled = trio.Event()
            self._stale_work.set()

    async def run(self) -> None:
        """Tell the kernel what to forget, and look after interrupted callers, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._interrupts.run)
            while True:
                await self._stale_work.wait()
                self._stale_work = trio.Event()
                while self._stale:
                    stale, self._stale = list(self._stale), {}
                    # Telling the kernel of a name waits for the directory's lock, whose holder may
                    # wait for our answer: never in this thread.
                    await trio.to_thread.run_sync(make_forget, stale, abandon_on_cancel=True)
                settled, self._settled = self._settled, None
                if settled is not None:
                    settled.set()

    async def settle(self) -> None:
        """Wait until the kernel has forgotten all that it should, for a second at most.

        Not for ever: unlink(2) holds the directory's lock while it waits for the lock of the file,
        which whoever writes to the file holds until we answer.
        """
        if self._settled is not None:
            with trio.move_on_after(SETTLE):
                await self._settled.wait()

    def _node(self, ino: int) -> Node:
        node = self._nodes.get(ino)
        if node is None:
            refuse(errno.ESTALE)
        return node

    def _directory(self, ino: int) -> Directory:
        node = self._node(ino)
        if not isinstance(node, Directory):
            refuse(errno.ENOTDIR)
        return node

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        """`attributes`; while the kernel knows the node and may remember them, they are made once."""
        entry = self._prepared.get(node.ino)
        if entry is None:
            entry = attributes(node)
            if entry.attr_timeout and node.ino in self._nodes:
                self._prepared[node.ino] = entry
        return entry

    def _remember(self, node: Node) -> None:
        self._nodes[node.ino] = node
        self._lookups[node.ino] = self._lookups.get(node.ino, 0) + 1

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            left = self._lookups.get(ino, 0) - count
            if left > 0:
                self._lookups[ino] = left
            elif ino != ROOT_INO:
                for known in (self._lookups, self._nodes, self._prepared):
                    known.pop(ino, None)

    # Names and attributes

    @answers
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self._directory(parent_inode)
        node = directory.lookup(os.fsdecode(name)) if directory.alive else None
        if node is None:
            refuse(errno.ENOENT)
        self._remember(node)
        return self._attributes(node)

    @answers
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(self._node(inode))

    @answers
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        # kernfs_iop_setattr(), fs/kernfs/inode.c; the kernel has checked who asks. Truncation
        # succeeds and does nothing: a shell's ``>`` asks for it.
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
        self._prepared.pop(inode, None)
        return self._attributes(node)

    @answers
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        node = self._node(inode)
        if not isinstance(node, Symlink):
            refuse(errno.EINVAL)
        return os.fsencode(node.target)

    @answers
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return True  # default_permissions: the kernel has decided

    @answers
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        answer = pyfuse3.StatvfsData()  # simple_statfs(), fs/libfs.c
        answer.f_bsize = answer.f_frsize = PAGE_SIZE
        answer.f_namemax = 255
        return answer

    @answers
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return []

    # getxattr, setxattr and removexattr stay unimplemented: then the kernel answers EOPNOTSUPP by
    # itself, and saves asking for security.capability each time somebody truncates a file.

    # New and old names: refused, as sysfs and proc refuse them to root

    @answers
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        refuse(self._directory(parent_inode).create_errno)

    @answers
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self._directory(parent_inode)
        refuse(directory.create_errno if stat.S_ISREG(mode) else directory.make_errno)

    @answers
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        refuse(self._directory(parent_inode).make_errno)

    @answers
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        refuse(self._directory(parent_inode).make_errno)

    @answers
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        refuse(self._directory(new_parent_inode).make_errno)

    @answers
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

    @answers
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        refuse(self._directory(parent_inode).remove_errno)

    @answers
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        refuse(self._directory(parent_inode).remove_errno)

    # Open files

    @answers
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if not node.alive:
            refuse(errno.ENODEV)  # kernfs_fop_open(), fs/kernfs/file.c
        if not isinstance(node, File):
            refuse(errno.EINVAL)
        caller = caller_of(ctx)
        handle = node.open(caller, flags)
        if flags & os.O_DIRECT:  # do_dentry_open(), fs/open.c: there is nothing to go round
            handle.release()
            refuse(errno.EINVAL)
        number = next(self._numbers)
        self._open[number] = Open(handle, caller, node)
        # Without the page cache: what a file says is made when it is read. With it, mmap(2) works.
        cached = node.mappable and flags & os.O_ACCMODE == os.O_RDONLY
        return pyfuse3.FileInfo(fh=number, direct_io=not cached, keep_cache=False)

    @answers
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        file = self._open[fh]
        if file.at_once:
            return await file.handle.read(file.caller, off, size)
        try:
            with self._interrupts.operation(file.caller.pid, file.ino):
                return await file.handle.read(file.caller, off, size)
        finally:
            await self.settle()  # machine/syscall does things when it is read

    @answers
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self._open[fh]
        try:
            with self._interrupts.operation(file.caller.pid, file.ino):
                return await file.handle.write(file.caller, off, buf)
        finally:
            await self.settle()

    @answers
    async def flush(self, fh: int) -> None:
        file = self._open[fh]
        if not file.flushes:  # most, and every close(2) comes here
            return
        try:
            with self._interrupts.operation(file.caller.pid, file.ino, closing=True):
                await file.handle.flush(file.caller)
        finally:
            await self.settle()

    @answers
    async def fsync(self, fh: int, datasync: bool) -> None:
        node = self._open[fh].handle.node
        if isinstance(node, File) and node.fsync_errno:
            refuse(node.fsync_errno)

    @answers
    async def poll(
        self,
        inode: int,
        fh: int,
        poll_handle: pyfuse3.PollHandle | None,
        ctx: pyfuse3.RequestContext,
    ) -> int:
        file = self._open[fh]
        if poll_handle is not None:
            file.waiter = poll_handle
        return file.handle.poll(file.notify if poll_handle is not None else None)

    @answers
    async def release(self, fh: int) -> None:
        self._release(fh)

    def _release(self, number: int) -> None:
        file = self._open.pop(number)
        file.waiter = None
        file.handle.release()

    # Directories

    @answers
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        number = next(self._numbers)
        self._listings[number] = Listing(self._directory(inode))
        return number

    @answers
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        directory = listing.directory
        if start_id == 0:
            listing.names = list(directory.entries()) if directory.alive else []
        dots = [(b".", directory), (b"..", directory.parent or directory)]
        for index, (dot, node) in enumerate(dots[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, dot, self._attributes(node), index):
                return
        position = max(start_id, len(dots))
        for index in range(position - len(dots), len(listing.names)):
            name = listing.names[index]
            child = directory.lookup(name) if directory.alive else None
            if child is None:
                continue
            entry = self._attributes(child)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, index + len(dots) + 1):
                return
            self._remember(child)

    @answers
    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    @answers
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        refuse(errno.EINVAL)


def make_forget(stale: Sequence[tuple[int, str | None]]) -> None:
    """Have the kernel forget names in directories or, where there is no name, what stat(2) said."""
    for ino, name in stale:
        try:
            if name is None:
                pyfuse3.invalidate_inode(ino, attr_only=True)
            else:
                pyfuse3.invalidate_entry(ino, os.fsencode(name))
        except FileNotFoundError:
            pass  # it knew nothing of it
        except OSError:
            log.exception("the kernel did not forget %r in inode %d", name, ino)


def mount(root: Root, mountpoint: str, fsname: str, allow_other: bool) -> FileSystem:
    """Mount a tree; nothing is answered before `serve`.

    Raises `RuntimeError` when libfuse refuses; the reason is what it, or fusermount3, has written
    on file descriptor 2.
    """
    options = {f"fsname={fsname}", "subtype=klpfs", "default_permissions"}
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
        await pyfuse3.main(min_tasks=1, max_tasks=MAX_TASKS)
        nursery.cancel_scope.cancel()


def unmount(system: FileSystem, detach: bool) -> None:
    """End the connection, and, with ``detach``, take the mount away, busy or not."""
    system.close()
    pyfuse3.close(unmount=detach)
