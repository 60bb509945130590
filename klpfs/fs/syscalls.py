# SPDX-License-Identifier: GPL-2.0-or-later
"""``machine/syscall``: system calls of the guest, for programs under `klpfs.running.run`.

Each open of the file makes one call. A request is written, and its answer is read from offset 0.

A request is a line, ``NAME PID LENGTH ARGUMENT...``, followed by LENGTH bytes of data. The call runs when
the answer is read, as the task of thread PID of the host. It cannot run during the write, because the
host's kernel lets only one process at a time write to a file.

The answer is a line with the result (a number, ``-errno``, or ``killed SIGNAL`` if the task died in the
call), followed by the bytes that the call returns.

====================================  ==========================  =========================
``init_module PID LENGTH FLAGS``      parameters, NUL, module     flags of finit_module(2)
``delete_module PID LENGTH FLAGS``    name                        O_TRUNC forces it
``syslog PID 0 ACTION SIZE``                                      returns text
``uname PID 0``                                                   returns new_utsname
====================================  ==========================  =========================
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from klpfs.fs.caller import TaskDied, caller_task
from klpfs.fs.errors import raw_errno
from klpfs.fs.nodes import Caller, Handle, Node
from klpfs.fs.streams import Stream
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.syslog import Syslog

UTS_FIELD = 65
"""The size in bytes of each of the six strings of ``struct new_utsname``."""
UTS_SIZE = 6 * UTS_FIELD
_MAX_LINE = 256
_MAX_DATA = 128 << 20

Arguments = tuple[int, ...]


class _Line(NamedTuple):
    """The first line of a request."""

    name: str
    pid: int
    length: int
    arguments: Arguments


class Syscalls:
    """The system calls of one kernel.

    A call gets its caller, its numeric arguments and its data, and returns a number or bytes.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._syslog = Syslog(kernel.printk)
        self._calls: dict[str, Callable[[Caller, Arguments, bytes], Awaitable[int | bytes]]] = {
            "init_module": self._init_module,
            "delete_module": self._delete_module,
            "syslog": self._do_syslog,
            "uname": self._newuname,
        }

    async def call(self, line: _Line, caller: Caller, data: bytes) -> bytes:
        """Run a call and return the answer."""
        call = self._calls.get(line.name)
        try:
            if call is None:
                raise OSError(errno.ENOSYS, line.name)
            result = await call(caller, line.arguments, data)
        except TaskDied as death:
            return f"killed {death.signal}\n".encode()
        except ValueError:  # wrong number of arguments
            result = -errno.EINVAL
        except OSError as error:
            result = -raw_errno(error.errno)
        if isinstance(result, bytes):
            return f"{len(result)}\n".encode() + result
        return f"{result}\n".encode()

    async def _init_module(self, caller: Caller, arguments: Arguments, data: bytes) -> int:
        (flags,) = arguments
        parameters, _, module = data.partition(b"\0")
        async with caller_task(self._kernel, caller):
            text = parameters.decode("utf-8", "surrogateescape")
            await self._kernel.modules.init_module(module, text, flags)
        return 0

    async def _delete_module(self, caller: Caller, arguments: Arguments, data: bytes) -> int:
        (flags,) = arguments
        async with caller_task(self._kernel, caller):
            name = data.decode("utf-8", "surrogateescape")
            await self._kernel.modules.delete_module(name, force=bool(flags & os.O_TRUNC))
        return 0

    async def _do_syslog(self, caller: Caller, arguments: Arguments, _data: bytes) -> int | bytes:
        action, size = arguments
        return await self._syslog.call(action, size)

    async def _newuname(self, caller: Caller, _arguments: Arguments, _data: bytes) -> bytes:
        """Call the guest's function, so that a live patch of it takes effect."""
        kernel = self._kernel
        async with caller_task(kernel, caller):
            with kernel.user.buffer(UTS_SIZE) as buffer:
                await kernel.user.syscall("newuname", buffer)
                return kernel.computer.memory.read(buffer, UTS_SIZE)


class _Transaction(Handle):
    """An open file: the request of one call while it is written, then the answer."""

    def __init__(self, node: Node, calls: Syscalls, caller: Caller) -> None:
        super().__init__(node)
        self._calls = calls
        self._opener = caller
        self._line: _Line | None = None
        self._request = bytearray()
        self._answer: bytes | None = None

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        if self._answer is not None:
            raise OSError(errno.EBUSY, "an open file makes only one call")
        self._request += data
        if self._line is None:
            line, newline, rest = self._request.partition(b"\n")
            if len(line) > _MAX_LINE:
                raise OSError(errno.EINVAL, "the line is too long")
            if not newline:
                return len(data)
            self._line, self._request = _parse(bytes(line)), rest
        if len(self._request) > self._line.length:
            raise OSError(errno.EINVAL, "the data is longer than LENGTH")
        return len(data)

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        if self._answer is None:
            if self._line is None or len(self._request) < self._line.length:
                raise OSError(errno.EINVAL, "the request is not complete")
            self._answer = b""  # for other reads while the call runs
            task = Caller(self._line.pid, self._opener.uid, self._opener.gid)
            request, self._request = bytes(self._request), bytearray()
            self._answer = await self._calls.call(self._line, task, request)
        return self._answer[offset : offset + size]


def _parse(line: bytes) -> _Line:
    """Parse the first line of a request. Raise OSError(EINVAL)."""
    try:
        name, *words = line.decode("ascii").split()
        pid, length, *arguments = map(int, words)
    except ValueError:
        raise OSError(errno.EINVAL, "expected NAME PID LENGTH ARGUMENT...") from None
    if not 0 <= length <= _MAX_DATA:
        raise OSError(errno.EINVAL, "LENGTH is out of range")
    return _Line(name, pid, length, tuple(arguments))


def syscall_file(kernel: Kernel) -> Stream:
    """Return the file."""
    calls = Syscalls(kernel)
    return Stream(lambda node, caller, _flags: _Transaction(node, calls, caller), 0o600)
