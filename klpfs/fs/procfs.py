# SPDX-License-Identifier: GPL-2.0-or-later
"""``proc``: files whose contents guest code prints, a directory for each task, and sysctls. fs/proc/."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable

from klpfs.fs.attributes import ProcFile
from klpfs.fs.caller import caller_task
from klpfs.fs.dynamic import DynamicDirectory
from klpfs.fs.nodes import Caller, Directory, Node, ProcDirectory, Symlink
from klpfs.fs.sysctl import Sysctl, SysctlDirectory, dointvec, doulongvec
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.oops.taint import Taint
from klpfs.machine.kernel.oops.watchdog import LIMITS
from klpfs.machine.kernel.proc import S_IFDIR, ProcEntry
from klpfs.machine.kernel.proc_pid import proc_pid_stack, proc_pid_status
from klpfs.machine.kernel.sched.core import Task


def text_file(make: Callable[[], str], mode: int = 0o444) -> ProcFile:
    """Return a file whose text ``make`` returns, without running guest code."""

    async def show(_caller: Caller) -> bytes:
        return make().encode("utf-8", "surrogateescape")

    file = ProcFile(show, mode=mode)
    file.immediate = True
    return file


class ProcRoot(DynamicDirectory, ProcDirectory):
    """The root of proc: the registered entries, and a directory for each task, named by its pid."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(0o555)
        self._kernel = kernel

    def _task(self, name: str) -> Task | None:
        return self._kernel.sched.find(int(name)) if name.isdecimal() else None

    def names(self) -> Iterable[str]:
        return [str(task.pid) for task in self._kernel.sched]

    def exists(self, name: str) -> bool:
        return self._task(name) is not None

    def make(self, name: str) -> Node:
        task = self._task(name)
        assert task is not None
        directory = ProcDirectory(0o555)
        kernel = self._kernel
        directory.add("comm", text_file(lambda: f"{task.comm}\n", 0o644))
        directory.add("stack", text_file(lambda: proc_pid_stack(kernel.base, task), 0o400))
        if kernel.abi.patch_state:
            directory.add("patch_state", text_file(lambda: f"{task.struct.patch_state}\n", 0o400))
        directory.add("wchan", text_file(lambda: task.service or "0"))
        directory.add("status", text_file(lambda: proc_pid_status(kernel.base, task)))
        return directory


class Procfs:
    """The directory ``proc``, kept up to date with the entries that the kernel and modules register."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.root = ProcRoot(kernel)
        self.root.add("modules", text_file(kernel.modules.proc_modules))
        self.root.add("kallsyms", text_file(kernel.kallsyms.text))
        self._add_sysctls()
        for entry in kernel.proc.root.children.values():
            self._mirror(entry)
        kernel.proc.on_change.append(self._changed)

    def _directory_of(self, entry: ProcEntry) -> Directory:
        assert entry.parent is not None
        path = entry.parent.path
        found = self.root.find("/".join(path)) if path else self.root
        assert isinstance(found, Directory)
        return found

    def _mirror(self, entry: ProcEntry) -> None:
        self._changed(entry, True)
        for child in entry.children.values():
            self._mirror(child)

    def _changed(self, entry: ProcEntry, exists: bool) -> None:
        directory = self._directory_of(entry)
        if not exists:
            directory.remove(entry.name)
        elif directory.lookup(entry.name) is None:
            directory.add(entry.name, self._node(entry))

    def _node(self, entry: ProcEntry) -> Node:
        if entry.target:
            return Symlink(entry.target)
        if entry.mode & S_IFDIR:
            return ProcDirectory(entry.mode & 0o777)
        kernel = self._kernel

        async def show(caller: Caller) -> bytes:
            async with caller_task(kernel, caller):
                return await kernel.proc.read(entry)

        async def store(caller: Caller, data: bytes) -> None:
            async with caller_task(kernel, caller):
                await kernel.proc.write(entry, data)

        file = ProcFile(show, store, entry.mode & 0o777)
        file.size = entry.size
        return file

    # -- sysctls, kernel/sysctl.c -----------------------------------------------------------------

    def _add_sysctls(self) -> None:
        kernel = self._kernel
        sysctls = self.root.add("sys", SysctlDirectory(0o555))
        directory = sysctls.add("kernel", SysctlDirectory(0o555))

        async def set_tainted(value: int) -> None:
            kernel.tainted.mask |= value & (1 << len(Taint)) - 1

        directory.add("tainted", self._number(lambda: kernel.tainted.mask, set_tainted, doulongvec))
        directory.add(
            "ftrace_enabled", self._number(lambda: kernel.ftrace.enabled, kernel.ftrace.set_enabled)
        )
        for name, (minimum, maximum) in LIMITS.items():
            directory.add(name, self._watchdog_sysctl(name, minimum, maximum))
        directory.add("osrelease", self._text(kernel.image.release))
        directory.add("ostype", self._text("Linux"))

    @staticmethod
    def _text(text: str) -> Sysctl:
        async def show(_caller: Caller) -> bytes:
            return f"{text}\n".encode()

        return Sysctl(show)

    def _watchdog_sysctl(self, name: str, minimum: int, maximum: int) -> Sysctl:
        """Return a sysctl of the watchdog, an int (``proc_dointvec_minmax``)."""
        watchdog = self._kernel.watchdog

        async def set_(value: int) -> None:
            if not minimum <= value <= maximum:
                raise OSError(errno.EINVAL, "out of range")
            watchdog.set(name, value)

        return self._number(lambda: getattr(watchdog.sysctls, name), set_)

    def _number(
        self,
        get: Callable[[], int],
        set_: Callable[[int], Awaitable[None]],
        parse: Callable[[bytes], int] = dointvec,
    ) -> Sysctl:
        async def show(_caller: Caller) -> bytes:
            return f"{get()}\n".encode()

        async def store(caller: Caller, data: bytes) -> None:
            value = parse(data)
            async with caller_task(self._kernel, caller):
                await set_(value)

        return Sysctl(show, store)
