# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor: it makes the system calls of programs under `klpfs.running.run` in the guest's kernel.

It copies the data of a call from the caller's memory, writes it to ``machine/syscall``, and copies the
answer back: the part of ``kernel/module/main.c``, ``kernel/sys.c`` and ``kernel/printk/printk.c`` that
accesses user memory. Each call has its own thread, so that a call that sleeps does not delay others.
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
from klpfs.fs.syscalls import UTS_FIELD, UTS_SIZE
from klpfs.machine.host_names import RELEASE_MAX, is_host_name
from klpfs.running.seccomp import Listener, Notification

MODULE_NAME_LEN = 64 - 8
_MODULE_FLAGS, _COMPRESSED_FILE = 7, 4  # include/uapi/linux/module.h
_ELF_HEADER = 64
_MODULE_LIMIT = 64 << 20
_PARAMETERS_LIMIT = 1 << 20
_PAGE = 4096
_WRITE = 1 << 20
_SYSLOG_READS = (2, 3, 4)
_SYSLOG_UNPRIVILEGED = (3, 10)
"""READ_ALL and SIZE_BUFFER, which ``check_syslog_permissions`` allows to all users."""

_FATAL = frozenset(range(1, 32)) - {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGURG, signal.SIGWINCH,
}  # fmt: skip
"""The signals that end a process by default."""
_UTS_RELEASE = 2
"""The position of the release in ``struct new_utsname``."""

_SYS_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


class _Killed(Exception):
    """The caller's task died in the guest, and the caller must be killed by ``signal``."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class _Caller:
    """The thread that made a call. It is blocked, or dead, as long as this is in use."""

    def __init__(self, listener: Listener, notification: Notification) -> None:
        self._stack = contextlib.ExitStack()
        self.tid = notification.tid
        fields = status(Thread(self.tid, self.tid))
        if not fields:
            raise OSError(errno.ENOENT, "the caller is gone")
        self._status = fields
        self._uid = int(fields["Uid"].split()[1])
        self._pidfd = os.pidfd_open(int(fields["Tgid"]))
        self._stack.callback(os.close, self._pidfd)
        self._memory = os.open(f"/proc/{self.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, self._memory)
        listener.check(notification)  # the thread id was not reused before this

    def __enter__(self) -> _Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def privileged(self) -> bool:
        """True if the caller is the user that runs klpfs, the owner of the machine."""
        return self._uid == os.geteuid()

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes of the caller's memory (``copy_from_user``). Raise OSError(EFAULT)."""
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
        """Return a NUL-terminated string without the NUL, cut to ``limit`` bytes.

        ``strncpy_from_user``. Raise OSError(EFAULT).
        """
        text = b""
        while len(text) < limit:
            at = address + len(text)
            piece, nul, _ = self.read(at, _PAGE - at % _PAGE).partition(b"\0")
            text += piece
            if nul:
                break
        return text[:limit]

    def write(self, address: int, data: bytes) -> None:
        """Write to the caller's memory (``copy_to_user``). Raise OSError(EFAULT)."""
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
        """Duplicate a descriptor of the caller into this process. Raise OSError(EBADF)."""
        duplicate = int(_libc.syscall(_SYS_PIDFD_GETFD, self._pidfd, number, 0))
        if duplicate < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield duplicate
        finally:
            os.close(duplicate)

    def kill(self, number: int) -> None:
        """Kill the process by a signal, or by SIGKILL if that signal would not end it."""
        not_fatal = self._mask("SigBlk") | self._mask("SigIgn") | self._mask("SigCgt")
        if number not in _FATAL or not_fatal >> number - 1 & 1:
            number = signal.SIGKILL
        signal.pidfd_send_signal(self._pidfd, number)

    def _mask(self, name: str) -> int:
        """Return a signal mask of /proc/<pid>/status."""
        return int(self._status[name], 16)


def _int(value: int) -> int:
    """Return an argument of type int. The upper half of its register is undefined."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class Supervisor:
    """The answers to the calls that ``listener`` receives.

    ``machine``: a descriptor of the root directory of the machine that executes the calls.
    """

    def __init__(self, listener: Listener, machine: int) -> None:
        self._listener = listener
        self._machine = machine
        kmsg = os.stat("dev/kmsg", dir_fd=machine)
        self._kmsg = (kmsg.st_dev, kmsg.st_ino)

    def run(self) -> None:
        """Answer calls until the last process under the filter has ended."""
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
                    continue  # the caller was killed
                raise
            if notification.call is None:
                self._answer(notification)
            else:
                threading.Thread(target=self._answer, args=(notification,), daemon=True).start()

    def _answer(self, notification: Notification) -> None:
        """Execute a call and answer it. Nothing is raised: the caller must not wait for ever."""
        with contextlib.suppress(OSError):  # the caller is gone
            try:
                with _Caller(self._listener, notification) as caller:
                    try:
                        result = self._call(caller, notification)
                    except _Killed as killed:
                        caller.kill(killed.signal)
                        result = -errno.EINTR  # not seen: the signal is delivered first
            except OSError as error:
                # If the caller cannot be examined, an lseek(2) is left to the host.
                result = -(error.errno or errno.EIO) if notification.call else None
            except Exception:
                result = -errno.EIO
            if result is None:
                self._listener.pass_to_host(notification)
            else:
                self._listener.answer(notification, result)

    def _call(self, caller: _Caller, notification: Notification) -> int | None:
        """Return the result of a call, or None to leave it to the host. Raise OSError, _Killed."""
        args = notification.args
        match notification.call:
            case "uname":
                return self._uname(caller, args[0])
            case "init_module":
                return self._init_module(caller, *args[:3])
            case "finit_module":
                return self._finit_module(caller, _int(args[0]), args[1], _int(args[2]))
            case "delete_module":
                return self._delete_module(caller, args[0], _int(args[1]))
            case "syslog":
                return self._syslog(caller, _int(args[0]), args[1], _int(args[2]))
            case _:
                return self._seek_data(caller, _int(args[0]))

    def _uname(self, caller: _Caller, buffer: int) -> int:
        _, text = self._transact(f"uname {caller.tid} 0", b"")
        # Programs take the release for the name of a directory in /lib/modules, and depmod writes there.
        release = text[_UTS_RELEASE * UTS_FIELD :][:UTS_FIELD].split(b"\0")[0]
        if len(text) != UTS_SIZE or not is_host_name(os.fsdecode(release), RELEASE_MAX):
            raise OSError(errno.EIO, "the guest's uname is invalid")
        caller.write(buffer, text)
        return 0

    def _init_module(self, caller: _Caller, address: int, size: int, parameters: int) -> int:
        _require(caller.privileged)
        if size < _ELF_HEADER:
            raise OSError(errno.ENOEXEC, "too short")
        if size > _MODULE_LIMIT:
            raise OSError(errno.ENOMEM, "too long")
        module = caller.read(address, size)
        return self._load(caller, module, parameters, 0)

    def _finit_module(self, caller: _Caller, number: int, parameters: int, flags: int) -> int:
        _require(caller.privileged)
        if flags & ~_MODULE_FLAGS:
            raise OSError(errno.EINVAL, "unknown flags")
        with caller.descriptor(number) as descriptor:
            module = _read_file(descriptor)
        if flags & _COMPRESSED_FILE:
            raise OSError(errno.EOPNOTSUPP, "no CONFIG_MODULE_DECOMPRESS")
        return self._load(caller, module, parameters, flags)

    def _load(self, caller: _Caller, module: bytes, parameters: int, flags: int) -> int:
        data = caller.read_string(parameters, _PARAMETERS_LIMIT) + b"\0" + module
        return self._transact(f"init_module {caller.tid} {len(data)} {flags}", data)[0]

    def _delete_module(self, caller: _Caller, address: int, flags: int) -> int:
        _require(caller.privileged)
        name = caller.read_string(address, MODULE_NAME_LEN - 1)
        return self._transact(f"delete_module {caller.tid} {len(name)} {flags}", name)[0]

    def _syslog(self, caller: _Caller, action: int, buffer: int, size: int) -> int:
        _require(caller.privileged or action in _SYSLOG_UNPRIVILEGED)
        if action in _SYSLOG_READS and not buffer:
            raise OSError(errno.EINVAL, "no buffer")
        result, text = self._transact(f"syslog {caller.tid} 0 {action} {size}", b"")
        if result > 0 and text:
            caller.write(buffer, text[:size])
        return result

    def _seek_data(self, caller: _Caller, number: int) -> int | None:
        """Execute an lseek(2) on /dev/kmsg (``devkmsg_llseek``). Return None for any other file."""
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
        """Make a call through ``machine/syscall`` (`klpfs.fs.syscalls`).

        ``line`` and ``data`` are the request. Return the result and the bytes of the answer. Raise OSError,
        _Killed.
        """
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


def _require(privileged: bool) -> None:
    """Raise OSError(EPERM) unless the caller is privileged."""
    if not privileged:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _read_file(descriptor: int) -> bytes:
    """Return the whole file, whatever its offset is (``kernel_read_file``, fs/kernel_read_file.c)."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        raise OSError(errno.EINVAL, "not a regular file, or empty")
    if found.st_size > _MODULE_LIMIT:
        raise OSError(errno.EFBIG, "too long")
    data = b""
    while piece := os.pread(descriptor, found.st_size + 1 - len(data), len(data)):
        data += piece
    return data
