# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys/kernel/tracing``: the functions that can be traced, those that are, and the function tracer.
Documentation/trace/ftrace.rst, kernel/trace/trace.c, kernel/trace/ftrace.c."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress

from klpfs.fs.attributes import ProcFile
from klpfs.fs.caller import caller_task
from klpfs.fs.host_proc import has_open, thread_group
from klpfs.fs.nodes import Caller, Directory, Handle
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.trace.tracer import FUNCTION, NOP

_MAX_TRACER_SIZE = 100
_EMPTY = {
    False: "#### all functions enabled ####\n",
    True: "#### no functions disabled ####\n",
}
"""The contents of an empty ``set_ftrace_filter`` and, for True, ``set_ftrace_notrace``."""


class _Listing(ProcFile):
    """A file that cannot be written, even after chmod(2)."""

    unsupported_errno = errno.EINVAL

    def __init__(self, lines: Callable[[], str]) -> None:
        async def show(_caller: Caller) -> bytes:
            return lines().encode("utf-8", "surrogateescape")

        super().__init__(show, mode=0o440)


def tracefs(kernel: Kernel) -> Directory:
    """Return the directory."""
    ftrace = kernel.ftrace
    root = Directory(0o700)
    root.add(
        "available_filter_functions",
        _Listing(lambda: "".join(f"{ftrace.name(site)}\n" for site in ftrace.sites())),
    )
    root.add(
        "enabled_functions",
        _Listing(lambda: "".join(f"{ftrace.describe(s)}\n" for s in ftrace.enabled_sites())),
    )
    root.add("available_tracers", _Listing(lambda: f"{FUNCTION} {NOP}\n"))
    root.add("current_tracer", _current_tracer(kernel))
    root.add("tracing_on", _tracing_on(kernel))
    root.add("trace", _Trace(kernel))
    root.add("set_ftrace_filter", _Filter(kernel, notrace=False))
    root.add("set_ftrace_notrace", _Filter(kernel, notrace=True))
    return root


def _current_tracer(kernel: Kernel) -> ProcFile:
    tracer = kernel.tracer

    async def show(_caller: Caller) -> bytes:
        return f"{tracer.current}\n".encode()

    async def store(caller: Caller, data: bytes) -> None:
        name = data[:_MAX_TRACER_SIZE].split(b"\0")[0].rstrip()
        async with caller_task(kernel, caller):
            await tracer.set_current(name.decode("latin-1"))

    return ProcFile(show, store, 0o640)


def _tracing_on(kernel: Kernel) -> ProcFile:
    async def show(_caller: Caller) -> bytes:
        return f"{int(kernel.tracer.on)}\n".encode()

    async def store(_caller: Caller, data: bytes) -> None:
        number = re.fullmatch(rb"\+?([0-9]+)\n?", data.split(b"\0")[0])  # kstrtoul(), in base 10
        if number is None:
            raise OSError(errno.EINVAL, "not a number")
        kernel.tracer.on = bool(int(number[1]))

    return ProcFile(show, store, 0o640)


class _Trace(ProcFile):
    """``trace``. Opening it with O_TRUNC clears the buffer; written data is ignored."""

    def __init__(self, kernel: Kernel) -> None:
        self._tracer = kernel.tracer

        async def show(_caller: Caller) -> bytes:
            return self._tracer.text().encode("utf-8", "surrogateescape")

        async def store(_caller: Caller, data: bytes) -> None:
            """Ignore the data (``tracing_write_stub``)."""

        super().__init__(show, store, 0o640)

    def open(self, caller: Caller, flags: int) -> Handle:
        if flags & os.O_TRUNC and flags & os.O_ACCMODE != os.O_RDONLY:
            self._tracer.clear()
        return super().open(caller, flags)


class _Filter(ProcFile):
    """``set_ftrace_filter`` or ``set_ftrace_notrace``.

    Each word that is written adds functions, or removes them if it begins with ``!``. Opening the file
    with O_TRUNC removes all.
    """

    def __init__(self, kernel: Kernel, *, notrace: bool) -> None:
        self.kernel = kernel
        self.notrace = notrace

        async def show(_caller: Caller) -> bytes:
            names = "".join(f"{name}\n" for name in kernel.tracer.names(notrace=notrace))
            return (names or _EMPTY[notrace]).encode("utf-8", "surrogateescape")

        super().__init__(show, mode=0o640)

    def open(self, caller: Caller, flags: int) -> Handle:
        if flags & os.O_ACCMODE == os.O_RDONLY:
            return super().open(caller, flags)
        return _FilterWriter(self, bool(flags & os.O_TRUNC))


class _FilterWriter(Handle):
    """A filter file open for writing (``ftrace_regex_open``). Changes take effect when it is closed.

    The last close(2) is usually that after which the process that opened the file has no descriptor of
    it. The changes are visible before it returns. Otherwise they follow when the file is released.
    """

    node: _Filter

    def __init__(self, node: _Filter, truncates: bool) -> None:
        super().__init__(node)
        self._tracer = node.kernel.tracer
        self._sites = set() if truncates else self._tracer.functions(notrace=node.notrace)
        self._rest = b""
        self._pending = truncates

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        *words, self._rest = re.split(rb"[\s\0]+", self._rest + data)
        self._apply(words)
        return len(data)

    def _apply(self, words: list[bytes]) -> None:
        for word in filter(None, words):
            self._pending = True
            self._sites = self._tracer.apply(word.decode("utf-8", "surrogateescape"), self._sites)

    async def flush(self, caller: Caller) -> None:
        # A shell's redirection closes the original descriptor before anything is written, and a child
        # may close its copy.
        if not (self._pending or self._rest):
            return
        process = thread_group(caller.pid)
        if process is not None and has_open(process, self.node.ino) is not False:
            return
        self._end_word()
        if self._pending:
            self._pending = False
            async with caller_task(self.node.kernel, caller):
                await self._set()

    def _end_word(self) -> None:
        rest, self._rest = self._rest, b""
        self._apply([rest])

    def release(self) -> None:
        with suppress(OSError):
            self._end_word()
        if self._pending:
            self.node.kernel.workqueues.queue(self._set)

    async def _set(self) -> None:
        await self._tracer.set_functions(self._sites, notrace=self.node.notrace)
