# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of /proc that guest code registers and fills. fs/proc/generic.c, fs/proc/inode.c, fs/seq_file.c.

A read runs the file's open, read and release functions in the guest, with a ``struct file`` and a
buffer, until the read function reports the end of the file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.wait import ActiveReferences
from klpfs.machine.kernel.service import U32, U64, Ptr, service
from klpfs.machine.kernel.usermem import UserMemory
from klpfs.machine.limits import check_room
from klpfs.machine.memory import PAGE_SIZE, PageFault
from klpfs.machine.structs import Struct

S_IFDIR, S_IFLNK = 0o40000, 0o120000
_ITER_KVEC = 1
_MAX_CONTENT = 16 << 20
_PATH_MAX, _SIZE_MAX = 4096, (1 << 63) - 1
_MAX_ERRNO = 4095
_NAME_MAX = 255


@dataclass
class ProcEntry:
    """A ``proc_dir_entry``: a directory, a file with a ``show`` function, or one with ``proc_ops``."""

    name: str
    mode: int
    address: int
    parent: ProcEntry | None = None
    show: int = 0
    proc_ops: int = 0
    seq_ops: int = 0
    state_size: int = 0
    data: int = 0
    size: int = 0
    target: str = ""
    """Target of a symbolic link."""
    children: dict[str, ProcEntry] = field(default_factory=dict)
    in_use: ActiveReferences = field(default_factory=ActiveReferences)
    """References of the tasks that run its functions (``use_pde``)."""

    @property
    def path(self) -> tuple[str, ...]:
        """Names from the root of /proc down to this entry."""
        return (*self.parent.path, self.name) if self.parent else ()


class Proc:
    """The entries of /proc that the kernel and its modules have registered."""

    def __init__(self, base: Base, user: UserMemory) -> None:
        self._computer = base.computer
        self._space = base.computer.space
        self._sched = base.sched
        self._slab = base.slab
        self._bugs = base.bugs
        self._user = user
        self.root = ProcEntry("", 0o40555, 0)
        self._entries: dict[int, ProcEntry] = {}

        self.on_change: list[Callable[[ProcEntry, bool], None]] = []
        """Called with an entry, and True after it was added or False after it was removed."""

    # -- registering ------------------------------------------------------------------------------

    def _create(self, name_at: int, mode: int, parent: int, default: int) -> ProcEntry | None:
        """``__proc_create``. ``default`` holds the permission bits for a ``mode`` without any. Returns
        None, with a warning in the log, for an invalid name, and None if there is no memory."""
        path = self._space.read_string(name_at)
        *directories, name = path.split("/")
        here = self._directory(parent)
        for directory in directories:
            if directory not in here.children:
                return self._refuse(f"name '{path}'")
            here = here.children[directory]
        length = len(name.encode("utf-8", "surrogateescape"))
        if not 0 < length <= _NAME_MAX:
            return self._refuse(f"name len {length}")
        if name in (".", ".."):
            return self._refuse(f"name '{name}'")
        if here is self.root and name.isdecimal() and name.isascii():
            return self._refuse(f"create '/proc/{name}' by hand")
        if here is not self.root and not here.mode & S_IFDIR:
            return self._refuse(f"'{here.name}' is not a directory")
        if name in here.children:
            return self._refuse(
                f"proc_dir_entry '{here.name or '/proc'}/{name}' already registered"
            )
        size = self._space.types.sizeof("struct proc_dir_entry")
        try:
            check_room(self._entries)
            address = self._slab.alloc(size, "proc")
        except MemoryError:
            return None
        return ProcEntry(name, mode if mode & 0o777 else mode | default, address, here)

    def _directory(self, address: int) -> ProcEntry:
        """Return the entry at ``address``; 0 means the root. Raises PageFault if there is no entry."""
        if not address:
            return self.root
        entry = self._entries.get(address)
        if entry is None:
            raise PageFault(address)
        return entry

    def _refuse(self, message: str) -> ProcEntry | None:
        self._bugs.warn("fs/proc/generic.c", 429, "__proc_create", message)
        return None

    def _register(self, entry: ProcEntry) -> int:
        """``proc_register``. Returns the address of the entry."""
        assert entry.parent is not None
        entry.parent.children[entry.name] = entry
        self._entries[entry.address] = entry
        for listener in self.on_change:
            listener(entry, True)
        return entry.address

    @service("proc_create_single_data")
    def proc_create_single_data(
        self, name: Ptr, mode: U32, parent: Ptr, show: Ptr, data: Ptr
    ) -> int:
        entry = self._create(name, mode, parent, 0o444)
        if entry is None:
            return 0
        entry.show, entry.data = show, data
        return self._register(entry)

    @service("proc_create_data")
    def proc_create_data(self, name: Ptr, mode: U32, parent: Ptr, ops: Ptr, data: Ptr) -> int:
        entry = self._create(name, mode, parent, 0o444)
        if entry is None:
            return 0
        entry.proc_ops, entry.data = ops, data
        return self._register(entry)

    @service("proc_create")
    def proc_create(self, name: Ptr, mode: U32, parent: Ptr, ops: Ptr) -> int:
        return self.proc_create_data(name, mode, parent, ops, 0)

    @service("proc_create_seq_private")
    def proc_create_seq_private(
        self, name: Ptr, mode: U32, parent: Ptr, ops: Ptr, state_size: U32, data: Ptr
    ) -> int:
        entry = self._create(name, mode, parent, 0o444)
        if entry is None:
            return 0
        entry.seq_ops, entry.state_size, entry.data = ops, state_size, data
        return self._register(entry)

    @service("proc_mkdir")
    def proc_mkdir(self, name: Ptr, parent: Ptr) -> int:
        return self.proc_mkdir_data(name, 0, parent, 0)

    @service("proc_mkdir_mode")
    def proc_mkdir_mode(self, name: Ptr, mode: U32, parent: Ptr) -> int:
        return self.proc_mkdir_data(name, mode, parent, 0)

    @service("proc_mkdir_data")
    def proc_mkdir_data(self, name: Ptr, mode: U32, parent: Ptr, data: Ptr) -> int:
        entry = self._create(name, S_IFDIR | mode, parent, 0o555)
        if entry is None:
            return 0
        entry.data = data
        return self._register(entry)

    @service("proc_symlink")
    def proc_symlink(self, name: Ptr, parent: Ptr, target: Ptr) -> int:
        entry = self._create(name, S_IFLNK, parent, 0o777)
        if entry is None:
            return 0
        entry.target = self._space.read_string(target, _PATH_MAX - 1)
        return self._register(entry)

    @service("proc_set_size")
    def proc_set_size(self, address: Ptr, size: U64) -> None:
        self._directory(address).size = min(size, _SIZE_MAX)

    @service("proc_remove")
    async def proc_remove(self, address: Ptr) -> None:
        entry = self._entries.get(address)
        if entry is not None:
            await self._remove(entry)

    @service("remove_proc_entry", "remove_proc_subtree")
    async def remove_proc_entry(self, name_at: Ptr, parent: Ptr) -> int:
        here = self._directory(parent)
        for name in self._space.read_string(name_at).split("/"):
            if name not in here.children:
                raise OSError(errno.ENOENT, "no such entry")
            here = here.children[name]
        await self._remove(here)
        return 0

    async def _remove(self, entry: ProcEntry) -> None:
        """Remove an entry, then wait until no task runs its functions (``proc_entry_rundown``)."""
        for child in list(entry.children.values()):
            await self._remove(child)
        assert entry.parent is not None
        del entry.parent.children[entry.name]
        del self._entries[entry.address]
        for listener in self.on_change:
            listener(entry, False)
        await entry.in_use.drain(self._sched.current)
        self._slab.free(entry.address)

    @service("pde_data")
    def pde_data(self, inode: Ptr) -> int:
        """Return the ``data`` argument that a file of /proc was created with."""
        return int(self._space.view("struct inode", inode).i_private)

    # -- reading and writing ----------------------------------------------------------------------

    @contextmanager
    def _scratch(self, size: int) -> Iterator[int]:
        address = self._slab.alloc(size, "proc read")
        try:
            yield address
        finally:
            self._slab.free(address)

    def _open_file(self, entry: ProcEntry, at: int) -> tuple[Struct, Struct]:
        """Set up a struct file and its inode in the zeroed page at ``at``. Returns both."""
        space = self._space
        file = space.view("struct file", at)
        inode = space.view("struct inode", at + PAGE_SIZE // 2)
        inode.i_private = entry.data
        inode.i_mode = 0o100000 | entry.mode
        file.f_inode = inode
        return file, inode

    async def read(self, entry: ProcEntry) -> bytes:
        """Return the whole content, read with a buffer of one page.

        Raises OSError with the errno that a function of the guest returned; EIO if the file has no read
        function, ENODEV if it has been removed.
        """
        call, symbol = self._sched.current.call, self._computer.symbol
        with (
            entry.in_use.hold(),
            self._scratch(PAGE_SIZE) as at,
            self._scratch(PAGE_SIZE) as buffer,
        ):
            file, inode = self._open_file(entry, at)
            if entry.show:
                check(await call(symbol("single_open"), file.address_, entry.show, entry.data))
                release = symbol("single_release")
                read_iter, read = symbol("seq_read_iter"), 0
            elif entry.seq_ops:
                size, file_at = entry.state_size, file.address_
                opened = await call(symbol("__seq_open_private"), file_at, entry.seq_ops, size)
                if not opened:
                    raise OSError(errno.ENOMEM, "no memory for the iterator")
                release = symbol("seq_release_private")
                read_iter, read = symbol("seq_read_iter"), 0
            else:
                ops = self._space.view("struct proc_ops", entry.proc_ops)
                release, read_iter, read = ops.proc_release, ops.proc_read_iter, ops.proc_read
                if ops.proc_open:
                    check(await call(ops.proc_open, inode.address_, file.address_))
            try:
                if read_iter:
                    return await self._read_iter(read_iter, file, at, buffer)
                if read:
                    return await self._read(read, file)
                raise OSError(errno.EIO, "no read function")
            finally:
                if release:
                    await call(release, inode.address_, file.address_)

    async def _read_iter(self, read_iter: int, file: Struct, at: int, buffer: int) -> bytes:
        space = self._space
        kiocb = space.view("struct kiocb", at + PAGE_SIZE * 3 // 4)
        iterator = space.view("struct iov_iter", kiocb.address_ + 256)
        kvec = space.view("struct kvec", kiocb.address_ + 512)
        kiocb.ki_filp = file
        content = bytearray()
        while len(content) < _MAX_CONTENT:
            kvec.iov_base, kvec.iov_len = buffer, PAGE_SIZE
            iterator.iter_type, iterator.iov_offset = _ITER_KVEC, 0
            iterator.count, iterator.kvec, iterator.nr_segs = PAGE_SIZE, kvec, 1
            got = check(
                await self._sched.current.call(read_iter, kiocb.address_, iterator.address_)
            )
            if not got:
                break
            content += self._computer.memory.read(buffer, min(got, PAGE_SIZE))
        return bytes(content)

    async def _read(self, read: int, file: Struct) -> bytes:
        call, position = self._sched.current.call, file.member_address_("f_pos")
        content = bytearray()
        with self._user.buffer(PAGE_SIZE) as buffer:
            while len(content) < _MAX_CONTENT:
                got = check(await call(read, file.address_, buffer, PAGE_SIZE, position))
                if not got:
                    break
                content += self._computer.memory.read(buffer, min(got, PAGE_SIZE))
        return bytes(content)

    async def write(self, entry: ProcEntry, data: bytes) -> None:
        """Call the file's write function with ``data``. Raises OSError with the errno that a function of
        the guest returned; EIO if the file has no write function, ENODEV if it has been removed."""
        call = self._sched.current.call
        ops = self._space.view("struct proc_ops", entry.proc_ops) if entry.proc_ops else None
        if ops is None or not ops.proc_write:
            raise OSError(errno.EIO, "no write function")
        with (
            entry.in_use.hold(),
            self._scratch(PAGE_SIZE) as at,
            self._user.buffer(len(data)) as buffer,
        ):
            file, inode = self._open_file(entry, at)
            self._computer.memory.write(buffer, data)
            if ops.proc_open:
                check(await call(ops.proc_open, inode.address_, file.address_))
            try:
                position = file.member_address_("f_pos")
                check(await call(ops.proc_write, file.address_, buffer, len(data), position))
            finally:
                if ops.proc_release:
                    await call(ops.proc_release, inode.address_, file.address_)


def check(result: int) -> int:
    """Return ``result``, the return value of a kernel function. Raises OSError if it is ``-errno``."""
    low = result & 0xFFFFFFFF
    if result >= (1 << 64) - _MAX_ERRNO:
        raise OSError((1 << 64) - result, "a guest function failed")
    if (1 << 32) - _MAX_ERRNO <= result < 1 << 32:
        raise OSError((1 << 32) - low, "a guest function failed")
    return result
