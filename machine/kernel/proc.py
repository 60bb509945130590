# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of /proc that guest code registers and fills. fs/proc/generic.c, fs/proc/inode.c, fs/seq_file.c.

A read runs the file's open, read and release functions in the guest, with a ``struct file`` and a
buffer, until the read function reports the end of the file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISDIR, S_ISREG

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.kernel.proc_tree import (
    KERNEL_NAMES,
    KLPFS_NAMES,
    PROCESS_LINKS,
    ProcEntry,
    leaves_proc,
    name_to_int,
)
from klpfs.machine.kernel.service import U32, U64, Ptr, service
from klpfs.machine.kernel.usermem import UserMemory
from klpfs.machine.limits import check_room
from klpfs.machine.memory import PAGE_SIZE, PageFault
from klpfs.machine.structs import Struct

_ITER_KVEC = 1
_MAX_CONTENT = 16 << 20
_PATH_MAX, _SIZE_MAX = 4096, (1 << 63) - 1
_MAX_ERRNO = 4095
_NAME_MAX = 255
_MAX_DEPTH = 128
"""The number of directories in one another. Linux has no limit."""
_PROC_ENTRY_PERMANENT = 1 << 0
_GENERIC = "fs/proc/generic.c"


class Proc:
    """The entries of /proc that the kernel and its modules have registered.

    Names of the root that are taken by others can be neither registered nor removed: those of klpfs, those
    that lead to processes, and those given to `reserve`.
    """

    def __init__(self, base: Base, user: UserMemory) -> None:
        self._computer = base.computer
        self._space = base.computer.space
        self._sched = base.sched
        self._slab = base.slab
        self._bugs = base.bugs
        self._printk = base.printk
        self._user = user
        self.root = ProcEntry("", S_IFDIR | 0o555, 0)
        self._entries: dict[int, ProcEntry] = {}
        self._reserved = KLPFS_NAMES | PROCESS_LINKS

        self.on_change: list[Callable[[ProcEntry, bool], None]] = []
        """Called with an entry, and True after it was added or False after it was removed."""

    def reserve(self, names: Iterable[str]) -> frozenset[str]:
        """Let names of the root be taken, except those that the guest's kernel itself has registered.

        Return the names that are taken now.
        """
        taken = frozenset(names) - self.root.children.keys()
        self._reserved |= taken
        return taken

    def reserve_kernel_names(self) -> None:
        """Let the names be taken that Linux itself registers, as after its boot."""
        self.reserve(KERNEL_NAMES)

    # -- registering ------------------------------------------------------------------------------

    def _create(self, name_at: int, mode: int, parent: int) -> ProcEntry | None:
        """``__proc_create``. Return None, with a warning in the log, for an invalid name, and None if
        there is no memory."""
        found = self._xlate_proc_name(name_at, parent)
        if found is None:
            return None
        here, name = found
        if (warning := self._why_not(here, name)) is not None:
            self._warn(*warning)
            return None
        size = self._space.types.sizeof("struct proc_dir_entry")
        try:
            check_room(self._entries)
            if len(here.path) >= _MAX_DEPTH:
                raise MemoryError("too many directories in one another")
            address = self._slab.alloc(size, "proc")
        except MemoryError:
            return None
        return ProcEntry(name, mode, address, here)

    def _why_not(self, here: ProcEntry, name: str) -> tuple[int, str, str] | None:
        """Return the line, function and text of the warning about a name that cannot be registered."""
        length = len(os.fsencode(name))
        if not 0 < length <= _NAME_MAX:
            return 429, "__proc_create", f"name len {length}"
        if name in (".", ".."):
            return 433 if name == "." else 437, "__proc_create", f"name '{name}'"
        if here is self.root and name_to_int(name) is not None:
            return 441, "__proc_create", f"create '/proc/{name}' by hand"
        if not S_ISDIR(here.mode):
            return 445, "__proc_create", f"'{here.name}' is not a directory"
        if name in here.children or (here is self.root and name in self._reserved):
            text = f"proc_dir_entry '{here.name or '/proc'}/{name}' already registered"
            return 400, "proc_register", text
        return None

    def _create_reg(self, name: int, mode: int, parent: int, data: int) -> ProcEntry | None:
        """``proc_create_reg``."""
        if not S_IFMT(mode):
            mode |= S_IFREG
        if not mode & 0o7777:
            mode |= 0o444
        if not S_ISREG(mode):
            self._warn(573, "proc_create_reg")
            return None
        entry = self._create(name, mode, parent)
        if entry is not None:
            entry.data = data
        return entry

    def _xlate_proc_name(self, name_at: int, parent: int) -> tuple[ProcEntry, str] | None:
        """Return the directory of the path at ``name_at``, and the last name of that path.

        Return None, with a warning in the log, if there is no such directory.
        """
        path = self._space.read_string(name_at)
        *directories, name = path.split("/")
        here = self._directory(parent)
        for directory in directories:
            if directory not in here.children:
                self._warn(175, "__xlate_proc_name", f"name '{path}'")
                return None
            here = here.children[directory]
        return here, name

    def _directory(self, address: int) -> ProcEntry:
        """Return the entry at ``address``; 0 means the root. Raises PageFault if there is no entry."""
        if not address:
            return self.root
        entry = self._entries.get(address)
        if entry is None:
            raise PageFault(address)
        return entry

    def _warn(self, line: int, function: str, message: str = "") -> None:
        self._bugs.warn(_GENERIC, line, function, message)

    def _register(self, entry: ProcEntry) -> int:
        """``proc_register``. Returns the address of the entry."""
        assert entry.parent is not None
        if entry.proc_ops:
            ops = self._space.view("struct proc_ops", entry.proc_ops)
            if ops.proc_flags & _PROC_ENTRY_PERMANENT:  # pde_set_flags()
                view = self._space.view("struct proc_dir_entry", entry.address)
                view.flags = _PROC_ENTRY_PERMANENT
        entry.parent.children[entry.name] = entry
        self._entries[entry.address] = entry
        for listener in self.on_change:
            listener(entry, True)
        return entry.address

    @service("proc_create_single_data")
    def proc_create_single_data(
        self, name: Ptr, mode: U32, parent: Ptr, show: Ptr, data: Ptr
    ) -> int:
        entry = self._create_reg(name, mode, parent, data)
        if entry is None:
            return 0
        entry.show = show
        return self._register(entry)

    @service("proc_create_data")
    def proc_create_data(self, name: Ptr, mode: U32, parent: Ptr, ops: Ptr, data: Ptr) -> int:
        entry = self._create_reg(name, mode, parent, data)
        if entry is None:
            return 0
        entry.proc_ops = ops
        return self._register(entry)

    @service("proc_create")
    def proc_create(self, name: Ptr, mode: U32, parent: Ptr, ops: Ptr) -> int:
        return self.proc_create_data(name, mode, parent, ops, 0)

    @service("proc_create_seq_private")
    def proc_create_seq_private(
        self, name: Ptr, mode: U32, parent: Ptr, ops: Ptr, state_size: U32, data: Ptr
    ) -> int:
        entry = self._create_reg(name, mode, parent, data)
        if entry is None:
            return 0
        entry.seq_ops, entry.state_size = ops, state_size
        return self._register(entry)

    @service("proc_mkdir")
    def proc_mkdir(self, name: Ptr, parent: Ptr) -> int:
        return self.proc_mkdir_data(name, 0, parent, 0)

    @service("proc_mkdir_mode")
    def proc_mkdir_mode(self, name: Ptr, mode: U32, parent: Ptr) -> int:
        return self.proc_mkdir_data(name, mode, parent, 0)

    @service("proc_mkdir_data")
    def proc_mkdir_data(self, name: Ptr, mode: U32, parent: Ptr, data: Ptr) -> int:
        entry = self._create(name, S_IFDIR | (mode & 0o7777 or 0o555), parent)
        if entry is None:
            return 0
        entry.data = data
        return self._register(entry)

    @service("proc_symlink")
    def proc_symlink(self, name: Ptr, parent: Ptr, target: Ptr) -> int:
        entry = self._create(name, S_IFLNK | 0o777, parent)
        if entry is None:
            return 0
        entry.target = self._space.read_string(target, _PATH_MAX - 1)
        entry.size = len(os.fsencode(entry.target))
        if leaves_proc(entry, self._reserved):
            self._printk(
                LOGLEVEL_WARNING,
                f"klpfs: the link /proc/{'/'.join(entry.path)} cannot be followed: "
                f"'{entry.target}' is not an entry that the guest has registered in /proc",
            )
        return self._register(entry)

    @service("proc_set_size")
    def proc_set_size(self, address: Ptr, size: U64) -> None:
        self._directory(address).size = min(size, _SIZE_MAX)

    # -- removing ---------------------------------------------------------------------------------

    @service("remove_proc_entry")
    async def remove_proc_entry(self, name_at: Ptr, parent: Ptr) -> None:
        found = self._xlate_proc_name(name_at, parent)
        if found is None:
            return
        directory, name = found
        entry = directory.children.get(name)
        if entry is not None and self._is_permanent(entry):
            self._warn(726, "remove_proc_entry", f"removing permanent /proc entry '{name}'")
            entry = None
        if entry is None:
            path = self._space.read_string(name_at)
            self._warn(734, "remove_proc_entry", f"name '{path}'")
            return
        self._erase(entry)
        await self._rundown(entry)
        if entry.children:
            self._warn(
                740,
                "remove_proc_entry",
                f"remove_proc_entry: removing non-empty directory '{directory.name or '/proc'}/"
                f"{name}', leaking at least '{next(iter(entry.children))}'",
            )

    @service("remove_proc_subtree")
    async def remove_proc_subtree(self, name_at: Ptr, parent: Ptr) -> int:
        found = self._xlate_proc_name(name_at, parent)
        entry = found[0].children.get(found[1]) if found else None
        return -errno.ENOENT if entry is None else await self._remove(entry)

    @service("proc_remove")
    async def proc_remove(self, address: Ptr) -> None:
        entry = self._entries.get(address)
        if entry is not None:
            await self._remove(entry)

    async def _remove(self, top: ProcEntry) -> int:
        """Remove an entry and all below it. Return -EINVAL, with a warning in the log, at an entry that
        is permanent."""
        here, line = top, 767
        while not self._is_permanent(here):
            self._erase(here)
            while not here.children:
                await self._rundown(here)
                if here is top:
                    return 0
                assert here.parent is not None
                here = here.parent
            here, line = next(iter(here.children.values())), 779
        assert here.parent is not None
        path = f"{here.parent.name or '/proc'}/{here.name}"
        self._warn(line, "remove_proc_subtree", f"removing permanent /proc entry '{path}'")
        return -errno.EINVAL

    def _is_permanent(self, entry: ProcEntry) -> bool:
        """``pde_is_permanent``."""
        view = self._space.view("struct proc_dir_entry", entry.address)
        return bool(getattr(view, "flags", 0) & _PROC_ENTRY_PERMANENT)  # no flags before Linux 5.7

    def _erase(self, entry: ProcEntry) -> None:
        """``pde_erase``."""
        assert entry.parent is not None
        if entry.parent.children.get(entry.name) is not entry:
            return  # a directory above it was removed by remove_proc_entry()
        del entry.parent.children[entry.name]
        for listener in self.on_change:
            listener(entry, False)

    async def _rundown(self, entry: ProcEntry) -> None:
        """``proc_entry_rundown``, ``pde_put``: wait until no task runs its functions, then free it."""
        if self._entries.get(entry.address) is not entry:
            return  # another task removes it
        del self._entries[entry.address]
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
