# SPDX-License-Identifier: GPL-2.0-or-later
"""Creation and end of tasks, kernel/fork.c, kernel/exit.c."""

from __future__ import annotations

import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.sched.core import Scheduler, Task, current_task
from klpfs.machine.kernel.sched.task import (
    PF_EXITING,
    PF_KTHREAD,
    THREAD_SIZE,
    TaskExit,
    TaskState,
)
from klpfs.machine.structs import Struct

KTHREAD_PID_BASE = 4 << 20
"""First pid of kernel threads: PID_MAX_LIMIT. A process of the host cannot have such a pid."""

_LIST_HEAD = struct.Struct("<QQ")

_log = logging.getLogger(__name__)


class Fork:
    """Creates the tasks of one scheduler, and releases them when they end.

    It calls the subscribers in the lists ``on_fork``, ``on_leave_kernel`` and ``on_release`` of `Scheduler`.
    """

    def __init__(self, sched: Scheduler, slab: Slab) -> None:
        self._computer = computer = sched.computer
        self._sched = sched
        self._slab = slab
        self.nursery: trio.Nursery
        """Nursery of the kernel threads; set by `start`."""
        self.kthreadd: Task | None = None
        """The parent of all kernel threads; set by `start`."""
        self._cpus_ptr = computer.adapter.find("task.cpus_ptr")
        self._stacks: list[int] = []
        self._next_kthread = KTHREAD_PID_BASE
        fields = computer.space.types["struct task_struct"].fields.values()
        self._list_heads = [
            member.offset for member in fields if str(member.type) == "struct list_head"
        ]

    def start(self, nursery: trio.Nursery) -> None:
        """Create kthreadd. Kernel threads run in ``nursery`` from now on."""
        self.nursery = nursery

        async def wait_for_work(task: Task) -> int:
            task.state = TaskState.INTERRUPTIBLE
            while True:
                await task.wait()
                task.state = TaskState.INTERRUPTIBLE

        self.kthreadd = self.create_kthread("kthreadd", wait_for_work)

    # -- tasks ------------------------------------------------------------------------------------

    def new_task(self, comm: str, pid: int, parent: Task | None, flags: int = 0) -> Task:
        """``copy_process``: create a task that does not run yet."""
        sched, space = self._sched, self._computer.space
        struct = self._dup_task_struct()
        stack = (
            self._stacks.pop()
            if self._stacks
            else self._computer.map_pages(self._computer.vmalloc_area, THREAD_SIZE)
        )
        struct.stack = stack
        struct.pid = struct.tgid = pid
        struct.flags = flags
        struct.comm = comm.encode("utf-8", "surrogateescape")[:15]
        struct.usage.refs.counter = 1
        struct.real_parent = (parent or sched.idle).address
        space.list_add_tail(
            struct.member_address_("tasks"), sched.idle.struct.member_address_("tasks")
        )
        task = Task(sched, struct, stack)
        for hook in sched.on_fork:
            hook(task, parent)
        sched.tasks[task.address] = task
        return task

    def _dup_task_struct(self) -> Struct:
        """``dup_task_struct``: copy ``init_task``. The copy is in no list, and its state is RUNNING."""
        space, init_task = self._computer.space, self._sched.idle.struct
        size = space.types.sizeof("struct task_struct")
        struct: Struct = space.view("struct task_struct", self._slab.alloc(size, "task_struct"))
        memory, address = self._computer.memory, struct.address_
        data = bytearray(memory.read(init_task.address_, size))
        for offset in self._list_heads:
            _LIST_HEAD.pack_into(data, offset, address + offset, address + offset)
        memory.write(address, bytes(data))
        self._sched.task_state.set(struct, int(TaskState.RUNNING))
        struct.thread_info.flags = 0
        if self._cpus_ptr is not None:
            # As in the kernel: migrate_enable() of PREEMPT_RT compares the two.
            self._cpus_ptr.set(struct, struct.member_address_("cpus_mask"))
        return struct

    def release_task(self, task: Task) -> None:
        """``release_task``: remove a task that has ended, and free its memory."""
        sched = self._sched
        for hook in sched.on_release:
            hook(task)
        task.struct.flags |= PF_EXITING
        task.state = TaskState.DEAD
        del sched.tasks[task.address]
        self._computer.space.list_del(task.struct.member_address_("tasks"))
        if sched.running is task:
            sched.switch_to(sched.idle)
        if not task.abandoned:
            self._stacks.append(task.stack)
            self.put_task_struct(task.struct)
        task.ended.set()

    def put_task_struct(self, struct: Struct) -> None:
        """``put_task_struct``: drop a reference to a task_struct. The last one frees it."""
        references = struct.usage.refs
        references.counter -= 1
        if not references.counter:
            self.free_task_struct(struct.address_)

    def free_task_struct(self, address: int) -> None:
        """``free_task_struct``: free the task_struct of a task that has ended."""
        self._slab.free(address)

    # -- processes of the host, and kernel threads ------------------------------------------------

    @asynccontextmanager
    async def user_task(self, pid: int, comm: str) -> AsyncIterator[Task]:
        """Create the task of a process of the host for the time of one operation, and make it current."""
        task = self.new_task(comm, pid, None)
        token = current_task.set(task)
        try:
            yield task
        finally:
            for hook in self._sched.on_leave_kernel:
                hook(task)
            self._sched.schedule_debug(task)
            current_task.reset(token)
            self.release_task(task)

    def create_kthread(
        self, comm: str, main: Callable[[Task], Awaitable[int]], *, sleeping: bool = False
    ) -> Task:
        """``kthread_create``: create a kernel thread that runs ``main``, once it is woken if ``sleeping``."""
        self._next_kthread += 1
        parent = self.kthreadd or self._sched.idle
        task = self.new_task(comm, self._next_kthread, parent, PF_KTHREAD)
        if sleeping:
            task.state = TaskState.UNINTERRUPTIBLE

        async def run() -> None:
            current_task.set(task)
            try:
                if sleeping:
                    await task.wait()
                task.exit_code = await main(task)
            except TaskExit as exit_:
                task.exit_code = exit_.code
            except Exception as error:
                with suppress(TaskExit):
                    await self._sched.fault(task, error)
            finally:
                self._sched.schedule_debug(task)
                self.release_task(task)

        async def root() -> None:
            try:
                await run()
            except Exception:  # guest code has overwritten its task_struct; other tasks go on
                _log.exception("cannot release task %s", comm)

        self.nursery.start_soon(root, name=comm)
        return task
