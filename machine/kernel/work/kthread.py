# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel threads that run functions of the guest. kernel/kthread.c, kernel/exit.c."""

from __future__ import annotations

import errno
from collections import deque

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.freezer import Freezer
from klpfs.machine.kernel.sched.task import TaskExit, TaskState
from klpfs.machine.kernel.sched.wait import Completion
from klpfs.machine.kernel.service import S32, S64, Ptr, service
from klpfs.machine.kernel.vsprintf import text, vscnprintf_here
from klpfs.machine.kernel.work.completion import Completions

_NAME_MAX = 64
_MAX_EXITED = 256
"""Most threads that have exited and are kept for a later kthread_stop()."""
_TASK_PARKED = TaskState(0x40)


class _Kthread:
    """``struct kthread``"""

    def __init__(self, function: int, data: int) -> None:
        self.function = function
        self.data = data
        self.should_stop = False
        self.should_park = False
        self.parked = Completion()
        self.result = 0
        self.exited = Completion()


class Kthreads:
    """The kernel threads of one kernel that run functions of the guest."""

    def __init__(self, base: Base, *, completions: Completions, freezer: Freezer) -> None:
        self._computer = base.computer
        self._sched = base.sched
        self._fork = base.fork
        self._completions = completions
        self._freezer = freezer
        self._kthreads: dict[int, _Kthread] = {}
        self._ended: deque[int] = deque()

    @service("kthread_create_on_node")
    async def kthread_create_on_node(self, function: Ptr, data: Ptr, _node: S32, fmt: Ptr) -> int:
        """Create a kernel thread that runs after its first wake-up. ``fmt`` and the variadic arguments are
        its name."""
        current = self._sched.current
        name = await vscnprintf_here(self._computer, current, fmt, fixed=4, limit=_NAME_MAX)
        kthread = _Kthread(function, data)

        async def main(task: Task) -> int:
            try:
                await self._run(task, kthread)
            finally:
                self._exited(task, kthread)
            return 0

        try:
            task = self._fork.create_kthread(text(name), main, sleeping=True)
        except MemoryError:
            raise OSError(errno.ENOMEM, "no memory for a task") from None
        # kthread_stop() may be called after the end of the thread, and reads its task_struct.
        task.struct.usage.refs.counter += 1
        task.function = function
        self._kthreads[task.address] = kthread
        return task.address

    async def _run(self, task: Task, kthread: _Kthread) -> None:
        """``kthread``: the main function of a kernel thread."""
        kthread.result = -errno.EINTR
        if not kthread.should_stop:
            await self._parkme(task, kthread)
            kthread.result = 0  # the result of a thread that is killed
            result = await task.call(kthread.function, kthread.data) & 0xFFFFFFFF
            kthread.result = result - (result >> 31 << 32)

    def _exited(self, task: Task, kthread: _Kthread) -> None:
        kthread.exited.complete_all()
        kthread.parked.complete_all()
        self._ended.append(task.address)
        while len(self._ended) > _MAX_EXITED:
            self._free_kthread(self._ended[0])

    def _free_kthread(self, address: int) -> None:
        """``free_kthread_struct``: drop a thread that has exited, and its reference to the task_struct."""
        if self._kthreads.pop(address, None) is not None:
            self._ended.remove(address)
            self._fork.put_task_struct(self._computer.space.view("struct task_struct", address))

    def _current(self) -> _Kthread | None:
        return self._kthreads.get(self._sched.current.address)

    # -- stopping ---------------------------------------------------------------------------------

    @service("kthread_stop")
    async def kthread_stop(self, address: Ptr) -> int:
        """Wait until the thread has ended. Returns the result of its function; -EINTR if it never ran."""
        kthread = self._kthreads.get(address)
        if kthread is None:
            raise OSError(errno.ESRCH, "no such kernel thread")
        kthread.should_stop = True
        self.kthread_unpark(address)
        if not kthread.exited.done:
            task = self._sched.at(address)
            task.signal_pending = True
            task.wake(TaskState.INTERRUPTIBLE | TaskState.UNINTERRUPTIBLE)
        await kthread.exited.wait(self._sched.current)
        self._free_kthread(address)
        return kthread.result

    @service("kthread_should_stop")
    async def kthread_should_stop(self) -> bool:
        await self._freezer.safe_point(self._sched.current)
        kthread = self._current()
        return kthread is not None and kthread.should_stop

    @service("kthread_data")
    def kthread_data(self, address: Ptr) -> int:
        kthread = self._kthreads.get(address)
        return kthread.data if kthread else 0

    @service("kthread_func", embedded=False)
    def kthread_func(self, address: Ptr) -> int:
        kthread = self._kthreads.get(address)
        return kthread.function if kthread else 0

    # -- parking ----------------------------------------------------------------------------------

    @service("kthread_should_park")
    async def kthread_should_park(self) -> bool:
        await self._freezer.safe_point(self._sched.current)
        kthread = self._current()
        return kthread is not None and kthread.should_park

    @service("kthread_parkme")
    async def kthread_parkme(self) -> None:
        kthread = self._current()
        if kthread is not None:
            await self._parkme(self._sched.current, kthread)

    async def _parkme(self, task: Task, kthread: _Kthread) -> None:
        """``__kthread_parkme``: sleep as long as the thread has to park."""
        while kthread.should_park:
            kthread.parked.complete_all()
            task.state = _TASK_PARKED
            await task.wait()
        task.state = TaskState.RUNNING

    @service("kthread_park")
    async def kthread_park(self, address: Ptr) -> int:
        kthread = self._kthreads.get(address)
        if kthread is None or kthread.exited.done:
            raise OSError(errno.ENOSYS, "the thread has ended")
        if kthread.should_park:
            raise OSError(errno.EBUSY, "the thread is parked")
        kthread.should_park = True
        task, current = self._sched.at(address), self._sched.current
        if task is not current:
            task.wake(TaskState.INTERRUPTIBLE | TaskState.UNINTERRUPTIBLE)
            await kthread.parked.wait(current)
        return 0

    @service("kthread_unpark")
    def kthread_unpark(self, address: Ptr) -> None:
        kthread = self._kthreads.get(address)
        if kthread is not None and kthread.should_park and not kthread.exited.done:
            kthread.should_park = False
            kthread.parked = Completion()
            self._sched.at(address).wake(_TASK_PARKED)

    # -- the end ----------------------------------------------------------------------------------

    @service("kthread_exit")
    def kthread_exit(self, result: S64) -> None:
        kthread = self._current()
        if kthread is not None:
            kthread.result = result
        raise TaskExit(0)

    @service("kthread_complete_and_exit")
    def kthread_complete_and_exit(self, completion: Ptr, result: S64) -> None:
        if completion:
            self._completions.complete(completion)
        self.kthread_exit(result)

    @service("do_exit")
    @service("make_task_dead", embedded=False)
    def do_exit(self, code: S64) -> None:
        raise TaskExit(code)

    @service("__put_task_struct")
    def put_task_struct(self, address: Ptr) -> None:
        """Free a task_struct: guest code has dropped the last reference."""
        self._fork.free_task_struct(address)
