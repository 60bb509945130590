# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that makes the system calls of `klpfs.running.run` in the guest's kernel.

It copies what a call points at out of the caller's memory, hands it to ``machine/syscall`` and copies
the answer back: what ``kernel/module/main.c``, ``kernel/sys.c`` and ``kernel/printk/printk.c`` do at
the border to user space. A thread for each call, for one that sleeps must not hold up another's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import stat
import threading
from collections.abc import Iterator

from klpfs.fs import devfs
from klpfs.fs.host_proc import Thread, status
from klpfs.running.seccomp import Listener, Notification

MODULE_NAME_LEN = 64 - 8
_MODULE_FLAGS, _COMPRESSED_FILE = 7, 4  # include/uapi/linux/module.h
_ELF_HEADER = 64
_MODULE_LIMIT = 64 << 20
_PARAMETERS_LIMIT = 1 << 20
_PAGE = 4096
_WRITE = 1 << 20
_SYSLOG_READS = (2, 3, 4)
_SYSLOG_FOR_ALL = (3, 10)
"""What ``check_syslog_permissions`` lets everybody do: READ_ALL and SIZE_BUFFER."""

_SYS_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


class _Killed(Exception):
    """The caller did not survive its call: ``signal`` is how it ended."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class _Caller:
    """The thread that made a call: it stands still, or is dead, while this is used."""

    def __init__(self, listener: Listener, notification: Notification) -> None:
        self._stack = contextlib.ExitStack()
        self._tid = notification.tid
        fields = status(Thread(self._tid, self._tid))
        if not fields:
            raise OSError(errno.ENOENT, "the caller is gone")
        self._status = fields
        self._uid = int(fields["Uid"].split()[1])
        self._pidfd = os.pidfd_open(int(fields["Tgid"]))
        self._stack.callback(os.close, self._pidfd)
        self._memory = os.open(f"/proc/{self._tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, self._memory)
        listener.check(notification)  # so all of this was its own, not a later process's

    def __enter__(self) -> _Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def privileged(self) -> bool:
        """The machine belongs to the user who runs the command, and to no other it becomes."""
        return self._uid == os.geteuid()

    def read(self, address: int, size: int) -> bytes:
        """``copy_from_user``. Raises OSError(EFAULT)."""
        data = b""
        while len(data) < size:
            piece = self._pread(address + len(data), size - len(data))
            if not piece:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            data += piece
        return data

    def _pread(self, address: int, size: int) -> bytes:
        if not 0 <= address < 1 << 63:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        try:
            return os.pread(self._memory, size, address)
        except OSError:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from None

    def read_string(self, address: int, limit: int) -> bytes:
        """``strncpy_from_user``: up to its NUL, at most ``limit`` bytes. Raises OSError(EFAULT)."""
        text = b""
        while len(text) < limit:
            at = address + len(text)
            piece, nul, _ = self.read(at, _PAGE - at % _PAGE).partition(b"\0")
            text += piece
            if nul:
                break
        return text[:limit]

    def write(self, address: int, data: bytes) -> None:
        """``copy_to_user``. Raises OSError(EFAULT)."""
        if not 0 <= address < 1 << 63:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        while data:
            try:
                count = os.pwrite(self._memory, data, address)
            except OSError:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from None
            address, data = address + count, data[count:]

    @contextlib.contextmanager
    def descriptor(self, number: int) -> Iterator[int]:
        """The caller's open file, here. Raises OSError(EBADF)."""
        ours = int(_libc.syscall(_SYS_PIDFD_GETFD, self._pidfd, number, 0))
        if ours < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield ours
        finally:
            os.close(ours)

    def kill(self, number: int) -> None:
        """End the process by a signal, or by SIGKILL if it would not end by that one."""
        spared = self._mask("SigBlk") | self._mask("SigIgn") | self._mask("SigCgt")
        if spared >> number - 1 & 1:
            number = signal.SIGKILL
        signal.pidfd_send_signal(self._pidfd, number)

    def _mask(self, name: str) -> int:
        """A set of signals in /proc/<pid>/status."""
        return int(self._status[name], 16)


def _int(value: int) -> int:
    """An argument of type int: the upper half of its register means nothing."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class Supervisor:
    """Answers the calls that come to ``listener``, on the machine whose root is the descriptor
    ``machine``."""

    def __init__(self, listener: Listener, machine: int) -> None:
        self._listener = listener
        self._machine = machine
        kmsg = os.stat("dev/kmsg", dir_fd=machine)
        self._kmsg = (kmsg.st_dev, kmsg.st_ino)

    def run(self) -> None:
        """Return when no process is left that could call."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            events = poll.poll()[0][1]
            if not events & select.POLLIN:
                return
            try:
                notification = self._listener.receive()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue  # killed while it waited
                raise
            if notification.call is None:
                self._answer(notification)
            else:
                threading.Thread(target=self._answer, args=(notification,), daemon=True).start()

    def _answer(self, notification: Notification) -> None:
        with contextlib.suppress(OSError):  # it is gone
            try:
                with _Caller(self._listener, notification) as caller:
                    try:
                        result = self._call(caller, notification)
                    except _Killed as killed:
                        caller.kill(killed.signal)
                        result = -errno.EINTR  # nobody sees it: on its way back the signal is there
            except OSError as error:
                # One that may not be looked into can still do what is the host's.
                result = -(error.errno or errno.EIO) if notification.call else None
            except Exception:
                result = -errno.EIO  # for the caller must not wait for ever
            if result is None:
                self._listener.let_through(notification)
            else:
                self._listener.answer(notification, result)

    def _call(self, caller: _Caller, notification: Notification) -> int | None:
        """What the call returns; None if it is the host's. Raises OSError."""
        args, tid = notification.args, notification.tid
        match notification.call:
            case "uname":
                _, text = self._transact(f"uname {tid} 0", b"")
                caller.write(args[0], text)
                return 0
            case "init_module":
                return self._init_module(caller, tid, *args[:3])
            case "finit_module":
                return self._finit_module(caller, tid, _int(args[0]), args[1], _int(args[2]))
            case "delete_module":
                return self._delete_module(caller, tid, args[0], _int(args[1]))
            case "syslog":
                return self._syslog(caller, tid, _int(args[0]), args[1], _int(args[2]))
            case _:
                return self._seek_data(caller, _int(args[0]))

    def _init_module(
        self, caller: _Caller, tid: int, address: int, size: int, parameters: int
    ) -> int:
        _need(caller.privileged)
        if size < _ELF_HEADER:
            raise OSError(errno.ENOEXEC, "too short")
        if size > _MODULE_LIMIT:
            raise OSError(errno.ENOMEM, "too long")
        module = caller.read(address, size)
        return self._load(caller, tid, module, parameters, 0)

    def _finit_module(
        self, caller: _Caller, tid: int, number: int, parameters: int, flags: int
    ) -> int:
        _need(caller.privileged)
        if flags & ~_MODULE_FLAGS:
            raise OSError(errno.EINVAL, "unknown flags")
        with caller.descriptor(number) as descriptor:
            module = _contents(descriptor)
        if flags & _COMPRESSED_FILE:
            raise OSError(errno.EOPNOTSUPP, "no CONFIG_MODULE_DECOMPRESS")
        return self._load(caller, tid, module, parameters, flags)

    def _load(self, caller: _Caller, tid: int, module: bytes, parameters: int, flags: int) -> int:
        data = caller.read_string(parameters, _PARAMETERS_LIMIT) + b"\0" + module
        return self._transact(f"init_module {tid} {len(data)} {flags}", data)[0]

    def _delete_module(self, caller: _Caller, tid: int, address: int, flags: int) -> int:
        _need(caller.privileged)
        name = caller.read_string(address, MODULE_NAME_LEN - 1)
        return self._transact(f"delete_module {tid} {len(name)} {flags}", name)[0]

    def _syslog(self, caller: _Caller, tid: int, action: int, buffer: int, size: int) -> int:
        _need(caller.privileged or action in _SYSLOG_FOR_ALL)
        if action in _SYSLOG_READS and not buffer:
            raise OSError(errno.EINVAL, "no buffer")
        result, text = self._transact(f"syslog {tid} 0 {action} {size}", b"")
        if result > 0 and text:
            caller.write(buffer, text)
        return result

    def _seek_data(self, caller: _Caller, number: int) -> int | None:
        """``devkmsg_llseek``, of /dev/kmsg; of anything else, it is the host's to do."""
        try:
            with caller.descriptor(number) as descriptor:
                found = os.fstat(descriptor)
                if (found.st_dev, found.st_ino) != self._kmsg:
                    return None
                os.lseek(descriptor, devfs.SEEK_TO_DATA, os.SEEK_SET)
                return 0
        except OSError:
            return None

    def _transact(self, line: str, data: bytes) -> tuple[int, bytes]:
        """Result and text of a call of the guest (`klpfs.fs.syscalls`). Raises OSError, _Killed."""
        descriptor = os.open("machine/syscall", os.O_RDWR | os.O_CLOEXEC, dir_fd=self._machine)
        try:
            request = memoryview(f"{line}\n".encode() + data)
            while request:
                request = request[os.write(descriptor, request[:_WRITE]) :]
            answer = b""
            while piece := os.pread(descriptor, _WRITE, len(answer)):
                answer += piece
        finally:
            os.close(descriptor)
        first, _, text = answer.partition(b"\n")
        if first.startswith(b"killed "):
            raise _Killed(int(first.split()[1]))
        result = int(first)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result, text


def _need(privilege: bool) -> None:
    if not privilege:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _contents(descriptor: int) -> bytes:
    """``kernel_read_file``, fs/kernel_read_file.c: the whole file, wherever its offset is."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        raise OSError(errno.EINVAL, "not a file with something in it")
    if found.st_size > _MODULE_LIMIT:
        raise OSError(errno.EFBIG, "too long")
    data = b""
    while piece := os.pread(descriptor, found.st_size + 1 - len(data), len(data)):
        data += piece
    return data
