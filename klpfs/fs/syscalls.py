# SPDX-License-Identifier: GPL-2.0-or-later
"""``machine/syscall``: system calls of this kernel, for programs that `klpfs.running.run` gives its view.

One open of the file is one call: a request is written, its answer is read from offset 0. A request is
a line, ``NAME PID LENGTH ARGUMENT...``, and LENGTH bytes of data; the call runs, as the task PID of the
host, when the answer is read (not before: the host lets only one process at a time write to a file).
The answer is a line with what the call returns (``-errno``, or ``killed`` if the task did not survive
the call) and the bytes it gives back.

====================================  ==========================  =========================
``init_module PID LENGTH FLAGS``      parameters, NUL, module     flags of finit_module(2)
``delete_module PID LENGTH FLAGS``    name                        O_TRUNC forces
``syslog PID 0 ACTION SIZE``                                      gives text
``uname PID 0``                                                   gives struct new_utsname
====================================  ==========================  =========================
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from klpfs.fs.caller import TaskDied, inside
from klpfs.fs.errors import raw_errno
from klpfs.fs.nodes import Caller, Handle, Node, Stream
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.syslog import Syslog

UTS_FIELD = 65
"""Bytes of each of the six strings of ``struct new_utsname``."""
UTS_SIZE = 6 * UTS_FIELD
_LONGEST_LINE = 256
_LONGEST_DATA = 128 << 20

Arguments = tuple[int, ...]


class _Line(NamedTuple):
    """The first line of a request."""

    name: str
    pid: int
    length: int
    arguments: Arguments


class Syscalls:
    """The calls, on one kernel. Each gets its caller, its numbers and its data, and gives a number or
    bytes."""

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
        """The answer to a request."""
        call = self._calls.get(line.name)
        try:
            if call is None:
                raise OSError(errno.ENOSYS, line.name)
            result = await call(caller, line.arguments, data)
        except TaskDied as death:
            return f"killed {death.signal}\n".encode()
        except ValueError:  # too few or too many arguments
            result = -errno.EINVAL
        except OSError as error:
            result = -raw_errno(error.errno)
        if isinstance(result, bytes):
            return f"{len(result)}\n".encode() + result
        return f"{result}\n".encode()

    async def _init_module(self, caller: Caller, arguments: Arguments, data: bytes) -> int:
        (flags,) = arguments
        parameters, _, module = data.partition(b"\0")
        async with inside(self._kernel, caller):
            text = parameters.decode("utf-8", "surrogateescape")
            await self._kernel.modules.init_module(module, text, flags)
        return 0

    async def _delete_module(self, caller: Caller, arguments: Arguments, data: bytes) -> int:
        (flags,) = arguments
        async with inside(self._kernel, caller):
            name = data.decode("utf-8", "surrogateescape")
            await self._kernel.modules.delete_module(name, force=bool(flags & os.O_TRUNC))
        return 0

    async def _do_syslog(self, caller: Caller, arguments: Arguments, _data: bytes) -> int | bytes:
        action, size = arguments
        return await self._syslog.call(action, size)

    async def _newuname(self, caller: Caller, _arguments: Arguments, _data: bytes) -> bytes:
        """The guest's own function, so that a live patch of it shows."""
        kernel = self._kernel
        async with inside(kernel, caller):
            with kernel.user.buffer(UTS_SIZE) as buffer:
                await kernel.user.syscall("newuname", buffer)
                return kernel.computer.memory.read(buffer, UTS_SIZE)


class _Transaction(Handle):
    """One call: its request as it comes in, then its answer."""

    def __init__(self, node: Node, calls: Syscalls, caller: Caller) -> None:
        super().__init__(node)
        self._calls = calls
        self._opener = caller
        self._line: _Line | None = None
        self._request = bytearray()
        self._answer: bytes | None = None

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        if self._answer is not None:
            raise OSError(errno.EBUSY, "one call for one open")
        self._request += data
        if self._line is None:
            line, newline, rest = self._request.partition(b"\n")
            if len(line) > _LONGEST_LINE:
                raise OSError(errno.EINVAL, "the line is too long")
            if not newline:
                return len(data)
            self._line, self._request = _parse(bytes(line)), rest
        if len(self._request) > self._line.length:
            raise OSError(errno.EINVAL, "the data is longer than was said")
        return len(data)

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        if self._answer is None:
            if self._line is None or len(self._request) < self._line.length:
                raise OSError(errno.EINVAL, "the request is not complete")
            self._answer = b""  # what is asked while the call lasts
            task = Caller(self._line.pid, self._opener.uid, self._opener.gid)
            request, self._request = bytes(self._request), bytearray()
            self._answer = await self._calls.call(self._line, task, request)
        return self._answer[offset : offset + size]


def _parse(line: bytes) -> _Line:
    try:
        name, *words = line.decode("ascii").split()
        pid, length, *arguments = map(int, words)
    except ValueError:
        raise OSError(errno.EINVAL, "NAME PID LENGTH ARGUMENT... is wanted") from None
    if not 0 <= length <= _LONGEST_DATA:
        raise OSError(errno.EINVAL, "nobody sends that much")
    return _Line(name, pid, length, tuple(arguments))


def syscall_file(kernel: Kernel) -> Stream:
    """The file."""
    calls = Syscalls(kernel)
    return Stream(lambda node, caller, _flags: _Transaction(node, calls, caller), 0o600)
