# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: a guest task is a trio task that owns a register context and a kernel stack.

One processor, so one task runs guest code at a time: between two checkpoints the running Python code
has the machine to itself, as kernel code on one CPU with preemption off has.
"""

from __future__ import annotations

import enum
import errno
import logging
import math
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from signal import SIGKILL
from typing import NoReturn

import trio

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import TRAP, Context, Stop, Why
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.service import Services
from klpfs.machine.memory import PageFault, is_canonical
from klpfs.machine.structs import Struct

THREAD_SIZE = 16384
"""Bytes of a kernel stack, arch/x86/include/asm/page_64_types.h."""
KTHREAD_PID_BASE = 4 << 20
"""Kernel threads of the guest get pids from here on: PID_MAX_LIMIT, which no process of the host that
uses the mount can have."""

_LIST_HEAD = struct.Struct("<QQ")
_INTERRUPT_FLAG = 1 << 9  # in EFLAGS
PF_EXITING, PF_KTHREAD = 0x4, 0x00200000
_TIF_SIGPENDING, _TIF_NOTIFY_SIGNAL = 1 << 2, 1 << 17
_MAX_NESTING = 64
_NO_RESCHED = 1 << 31  # PREEMPT_NEED_RESCHED, which is inverted
GENERAL_PROTECTION, PAGE_FAULT = 13, 14
"""Vectors of exceptions."""
SIGNAL_GRACE = 1.0
"""Seconds of real time for which a task with a signal may go on in guest code without a pause."""

_SERVICES_PER_SLICE = 64
_SLICE_OF_SERVICES = 0.002  # seconds

_log = logging.getLogger(__name__)


class TaskState(enum.IntFlag):
    """``task_struct.__state``, include/linux/sched.h."""

    RUNNING = 0
    INTERRUPTIBLE = 1
    UNINTERRUPTIBLE = 2
    DEAD = 0x80


class TaskExit(BaseException):
    """The task ends here: ``do_exit`` was called, or it was killed by an oops.

    Not an Exception, so that no service swallows it on its way to the root of the task.
    """

    def __init__(self, code: int = 0, *, oops: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.oops = oops


class Task:
    """A guest task. The truth about it is ``struct``, its task_struct in guest memory."""

    def __init__(self, sched: Scheduler, struct: Struct, stack: int) -> None:
        self._sched = sched
        self.struct = struct
        self.address: int = struct.address_
        self.pid: int = struct.pid
        self.stack = stack
        """Lowest address of the kernel stack."""
        self.context: Context = sched.cpu.fresh()
        self.depth = 0
        """How many guest calls of Python's are on the stack."""
        self.function = 0
        """The guest function that a kernel thread runs; 0 if its main loop is Python's."""
        self.entered = False
        """It has run guest code."""
        self.held = False
        """It is stopped at the door of the kernel, or at a safe point."""
        self.preempted = False
        """It was stopped in the middle of guest code, where its stack cannot be trusted."""
        self.service = ""
        """The kernel function that it waits in, as /proc/<pid>/wchan says."""
        self.on_sleep: Callable[[], None] | None = None
        """Called as it goes to sleep (``wq_worker_sleeping``)."""
        self.on_resume: Callable[[], None] | None = None
        """Called as it runs again after that (``wq_worker_running``)."""
        self.shield: trio.CancelScope | None = None
        """Keeps a process of the host in the kernel when it has a signal to take: a cancellation from
        outside of this scope."""
        self.atomic_since: int | None = None
        """Since when it was seen with preemption or interrupts off only; in nanoseconds since boot."""
        self.switches = 0
        """How often it has slept (``nvcsw``)."""
        self._signalled_since: float | None = None
        self._woken = trio.Event()
        self.ended = trio.Event()
        self.exit_code = 0

    @property
    def comm(self) -> str:
        """Its name."""
        name: str = self.struct.comm.string()
        return name

    @property
    def is_kthread(self) -> bool:
        """Whether it is a kernel thread and never returns to user space."""
        return bool(self.struct.flags & PF_KTHREAD)

    @property
    def state(self) -> TaskState:
        """What it waits for."""
        return TaskState(self._sched.task_state.get(self.struct))

    @state.setter
    def state(self, value: int) -> None:
        self._sched.task_state.set(self.struct, int(value))

    @property
    def signal_pending(self) -> bool:
        """``signal_pending()``: it shall not sleep interruptibly."""
        return bool(self.struct.thread_info.flags & (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL))

    @signal_pending.setter
    def signal_pending(self, pending: bool) -> None:
        info = self.struct.thread_info
        info.flags &= ~(_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL)
        if pending:
            info.flags |= _TIF_NOTIFY_SIGNAL

    def registers(self) -> dict[str, int]:
        """Its registers, where it stopped."""
        return self._sched.registers(self)

    def wake(self, states: int = ~0) -> bool:
        """``try_to_wake_up``: make it runnable if it waits in one of ``states``."""
        if not self.state & states:
            return False
        self.state = TaskState.RUNNING
        self._woken.set()
        return True

    async def wait(self, seconds: float | None = None) -> bool:
        """``schedule_timeout``: give the CPU away until somebody wakes this task, if its state says
        that it waits. False: the time was over first. A checkpoint."""
        if self.state == TaskState.RUNNING:
            self._sched.clock.slice_over()
            await trio.lowlevel.checkpoint()
            self._take_signal()
            return True
        if self._woken.is_set():
            self._woken = trio.Event()
        self._sched.schedule_debug(self)
        self.switches += 1
        self.atomic_since = None
        if self.on_sleep:
            self.on_sleep()
        try:
            if seconds is None:
                await self._sleep()
                return True
            with self._sched.clock.timeout(seconds) as scope:
                await self._sleep()
            self.state = TaskState.RUNNING
            return not scope.cancelled_caught
        finally:
            if self.on_resume:
                self.on_resume()

    async def _sleep(self) -> None:
        """Until it is woken, by a signal too if its state allows that."""
        if self.shield is None or not self.state & TaskState.INTERRUPTIBLE:
            await self._woken.wait()
            return
        self.shield.shield = False
        try:
            await self._woken.wait()
        except trio.Cancelled:
            if not self._signalled():
                raise
            self.signal_pending = True
            self.state = TaskState.RUNNING
        finally:
            self.shield.shield = True
        await trio.lowlevel.checkpoint()

    def _signalled(self) -> bool:
        """Whether the process of the host that this task is has a signal to take."""
        if self.shield is None or self.shield.cancel_called:  # the power is off
            return False
        self.shield.shield = False
        try:
            return trio.current_effective_deadline() == -math.inf
        finally:
            self.shield.shield = True

    async def call(self, function: int, *arguments: int, on_leak: OnLeak | None = None) -> int:
        """Run the guest function at ``function`` on this task's stack; returns RAX, unsigned.

        ``on_leak`` is told if it returns with preemption or interrupts off and must not; they are on
        again then. Without it, that is a task that sleeps so.

        Raises TaskExit if the task does not survive it. A checkpoint only if the guest takes long or
        waits.
        """
        sched, cpu = self._sched, self._sched.cpu
        if sched.gate is not None and not self.depth:
            await sched.gate(self)
        self.entered = True
        await sched.acquire(self)
        outer = cpu.save()
        before = sched.preempt_count
        self.depth += 1
        try:
            self._enter(function, arguments)
            result = await self._run()
            if self.depth == 1:
                self._check_leak(before, on_leak)
            return result
        except BaseException:
            if sched._pinned is None:  # what it held is lost, as in make_task_dead()
                sched.preempt_count = 0
            raise
        finally:
            self.depth -= 1
            sched.switch_to(self)
            cpu.restore(outer)

    def _check_leak(self, before: int, on_leak: OnLeak | None) -> None:
        sched = self._sched
        after, irqs_off = sched.preempt_count, not sched.interrupts_on
        if after == before and not irqs_off:
            return
        if on_leak is not None:
            on_leak(before, after, irqs_off)
        elif after != before:
            sched.schedule_bug(self)
        sched.preempt_count = before

    def _enter(self, function: int, arguments: tuple[int, ...]) -> None:
        """Stand at the beginning of ``function``, as if `guest_return` had called it."""
        sched, cpu = self._sched, self._sched.cpu
        if self.depth > _MAX_NESTING:
            raise OSError(errno.ELOOP, "guest and services call each other without end")
        if self.depth > 1:
            # The frame that the Python service would have, were it C: its caller stays on the chain
            # of frames that the unwinder follows.
            top = cpu["rsp"] - 8
            sched.computer.space.write_u64(top, cpu["rbp"])
            cpu["rbp"] = top
            back = sched.nested_return
        else:
            top = self.stack + THREAD_SIZE - 16
            cpu["rbp"] = 0
            back = sched.guest_return
        sched.computer.space.write_u64(top - 8, back)
        cpu["rsp"] = top - 8
        cpu["rip"] = function
        cpu.set_arguments(arguments)

    async def _run(self) -> int:
        sched, cpu = self._sched, self._sched.cpu
        while True:
            await sched.acquire(self)
            sched.tick()
            try:
                stop = cpu.run()
                if stop.why is Why.TRAP:
                    if sched.is_return(stop.address):
                        return cpu["rax"]
                    await self._serve(stop.address)
                    if sched.slice_used():
                        await self._preempt(reliable=True)
                    continue
            except Exception as error:  # of a service, by what the guest gave it
                await sched.fault(self, error)
            if stop.why is Why.EXCEPTION:
                await sched.raise_exception(self, stop)
            elif stop.why is Why.HALT:
                await self._halt()
            else:
                await self._preempt()

    async def _serve(self, address: int) -> None:
        sched = self._sched
        start = sched.services.waiting[address]()
        self.service = sched.service_name(address)
        try:
            result = await start
            if sched.gate is not None:
                await sched.gate(self)
        finally:
            self.service = ""
        await sched.acquire(self)
        if result is not None:
            sched.cpu["rax"] = result

    async def _preempt(self, *, reliable: bool = False) -> None:
        """The end of a slice: others may run, unless preemption is off. ``reliable`` says that the
        task stands at the end of a service."""
        sched = self._sched
        self.preempted = not reliable
        sched.clock.slice_over()
        try:
            with sched.pin(self):
                await sched.clock.give_way()
                sched.watch(self)
        finally:
            self.preempted = False
        self._take_signal()

    async def _halt(self) -> None:
        """A ``hlt``: until the next interrupt, of which the timer's is the only one."""
        sched = self._sched
        self.preempted = True
        try:
            with sched.pin(self):
                while True:
                    await sched.clock.idle()
                    sched.watch(self)
                    self._take_signal()
                    await sched.acquire(self)
                    if sched.interrupts_on:
                        break
        finally:
            self.preempted = False

    def _take_signal(self) -> None:
        """Linux tells the task of a signal, and lets it loop for ever if it does not listen. Here the
        process of the host would hang with it, and not even be killed: after a while the task is."""
        if not self._signalled():
            self._signalled_since = None
            return
        self.signal_pending = True
        now = trio.current_time()
        if self._signalled_since is None:
            self._signalled_since = now
        elif now - self._signalled_since > SIGNAL_GRACE:
            self._signalled_since = None  # what is done in its name now, as a release, has its time
            for hook in self._sched.on_deaf:
                hook(self)
            raise TaskExit(SIGKILL)


OnLeak = Callable[[int, int, bool], None]
"""Told of the preempt count before and after, and whether interrupts are off now."""
ExceptionHandler = Callable[[Task, Stop], Awaitable[None]]
Fork = Callable[[Task, Task | None], None]

_current: ContextVar[Task] = ContextVar("current")


class Scheduler:
    """Who runs, and the list of all tasks."""

    def __init__(self, computer: Computer, clock: Clock, *, slab: Slab, services: Services) -> None:
        self.computer = computer
        self.cpu = computer.cpu
        self.clock = clock
        self.services = services
        self._slab = slab
        self.nursery: trio.Nursery
        """Where kernel threads run; from `start` on."""
        self.on_exception: list[ExceptionHandler] = []
        """Called with a task that has met an exception: lets it go on, or raises TaskExit."""
        self.on_schedule_bug: list[Callable[[Task], None]] = []
        """Called with a task that sleeps with preemption off (``__schedule_bug``)."""
        self.on_service_bug: list[Callable[[Task, Exception], None]] = []
        """Called with the task of a service that failed in a way that it does not know of."""
        self.on_atomic: list[Callable[[Task], None]] = []
        """Called with a task that goes on with preemption off after a slice; may raise TaskExit."""
        self.on_might_sleep: list[Callable[[str, int], None]] = []
        """Called with the place in the kernel where a task may sleep, and must not."""
        self.on_deaf: list[Callable[[Task], None]] = []
        """Called with a task that is killed because it has a signal to take and does not pause."""
        self.on_fork: list[Fork] = []
        """Called with each new task before it runs, and its parent (``copy_process``); the parent of a
        process of the host is not in the guest, and None."""
        self.on_leave_kernel: list[Callable[[Task], None]] = []
        """Called with a user task that returns to user space (``exit_to_user_mode``)."""
        self.on_release: list[Callable[[Task], None]] = []
        """Called with a task that has ended, before it goes."""
        self.gate: Callable[[Task], Awaitable[None]] | None = None
        """Holds a task that is about to run guest code and is out of the kernel yet, while
        `klpfs.machine.kernel.sched.freezer` wants that."""
        self._stacks: list[int] = []
        self._next_kthread = KTHREAD_PID_BASE
        self._pinned: Task | None = None
        self._unpinned = trio.lowlevel.ParkingLot()
        self._jiffies = computer.symbol("jiffies")
        self._last_jiffies = 0
        self._served = 0
        self._slice_end = 0.0
        self.task_state = computer.adapter.field("task.state")
        self._cpus_ptr = computer.adapter.find("task.cpus_ptr")
        self._current_task = computer.adapter.per_cpu("current_task")
        self._preempt_count = computer.adapter.per_cpu("preempt_count")
        computer.space.write_u32(self._preempt_count, _NO_RESCHED)  # as after boot: enabled
        self.guest_return = computer.symbols.lookup("guest_return") or self._page_for_a_trap()
        """Where a guest function that Python has called returns to: the end of a stack."""
        self.nested_return = self._page_for_a_trap()
        """The same for a call from within a service: its caller is further up on the stack."""
        for address in (self.guest_return, self.nested_return):
            computer.memory.write(address, TRAP)
            self.cpu.set_trap(address, lambda: False)
        self._tasks: dict[int, Task] = {}
        self.kthreadd: Task | None = None
        """The parent of all kernel threads; from `start` on."""
        fields = computer.space.types["struct task_struct"].fields.values()
        self._list_heads = [
            member.offset for member in fields if str(member.type) == "struct list_head"
        ]
        self.idle = self._adopt_init_task()
        self._running = self.idle

    def start(self, nursery: trio.Nursery) -> None:
        """Boot is far enough for kernel threads. They run in ``nursery``."""
        self.nursery = nursery

        async def wait_for_work(task: Task) -> int:
            task.state = TaskState.INTERRUPTIBLE
            while True:
                await task.wait()
                task.state = TaskState.INTERRUPTIBLE

        self.kthreadd = self.create_kthread("kthreadd", wait_for_work)

    def _page_for_a_trap(self) -> int:
        return self.computer.map_pages(
            self.computer.modules_area, len(TRAP), writable=False, executable=True
        )

    def is_return(self, address: int) -> bool:
        """Whether a function that is called from Python returns to ``address``."""
        return address in (self.guest_return, self.nested_return)

    # -- who runs ---------------------------------------------------------------------------------

    @property
    def current(self) -> Task:
        """The guest task on whose behalf this Python code runs."""
        return _current.get(self.idle)

    async def acquire(self, task: Task) -> None:
        """Give ``task`` the processor. A checkpoint only while another has preemption off."""
        while self._pinned not in (None, task):
            await self._unpinned.park()
        self.switch_to(task)

    def switch_to(self, task: Task) -> None:
        """``context_switch``: load the registers of ``task``."""
        if self._running is not task:
            self._running.context = self.cpu.save()
            self.cpu.restore(task.context)
            self._running = task
            self.computer.space.write_u64(self._current_task, task.address)

    def pin(self, task: Task) -> _Pin:
        """While preemption is off in the guest, no other task may run there."""
        return _Pin(self, task)

    @property
    def preempt_count(self) -> int:
        """``preempt_count()`` of the CPU without the inverted need-resched bit."""
        return int(self.computer.space.read_u32(self._preempt_count)) & ~_NO_RESCHED

    @preempt_count.setter
    def preempt_count(self, value: int) -> None:
        inverted = self.computer.space.read_u32(self._preempt_count) & _NO_RESCHED
        self.computer.space.write_u32(self._preempt_count, value | inverted)

    @property
    def need_resched(self) -> bool:
        """``need_resched()``: somebody waits for the processor."""
        return not self.computer.space.read_u32(self._preempt_count) & _NO_RESCHED

    def schedule_debug(self, task: Task) -> None:
        """A task that goes to sleep with preemption off is reported, and gets it on again."""
        if self._pinned is None and self.preempt_count:
            self.schedule_bug(task)
            self.preempt_count = 0

    @property
    def interrupts_on(self) -> bool:
        """Whether the running task has interrupts enabled."""
        return bool(self.cpu["eflags"] & _INTERRUPT_FLAG)

    def slice_used(self) -> bool:
        """Whether the services that were called since this last said so make a slice: guest code that
        calls one after the other would never come to the end of its own."""
        self._served += 1
        if self._served < _SERVICES_PER_SLICE and (
            self.clock.virtual or time.monotonic() < self._slice_end
        ):
            return False
        self._served = 0
        self._slice_end = time.monotonic() + _SLICE_OF_SERVICES
        return True

    def watch(self, task: Task) -> None:
        """``task`` has had its slice and wants to go on. While it has preemption off, nobody else gets
        the processor, and preempt_enable() is told to give it away."""
        if self._pinned is not task:
            task.atomic_since = None
            return
        if task.atomic_since is None:
            task.atomic_since = self.clock.now()
        self._set_need_resched(True)
        for hook in self.on_atomic:
            hook(task)

    def might_sleep(self, file: str, line: int) -> None:
        """``might_sleep()``, as at this place in the kernel's source."""
        if self.preempt_count or not self.interrupts_on:
            for hook in self.on_might_sleep:
                hook(file, line)

    def _set_need_resched(self, needed: bool) -> None:
        count = self.computer.space.read_u32(self._preempt_count)
        count = count & ~_NO_RESCHED if needed else count | _NO_RESCHED
        self.computer.space.write_u32(self._preempt_count, count)

    async def preempt_schedule(self) -> None:
        """The end of a section with preemption off, for which somebody waits. A checkpoint."""
        self._set_need_resched(False)
        task = self.current
        task.atomic_since = None
        self.clock.slice_over()
        await trio.lowlevel.checkpoint()

    async def raise_exception(self, task: Task, stop: Stop) -> None:
        """Have an exception of ``task`` dealt with. Raises TaskExit if it ends the task."""
        for hook in self.on_exception:
            await hook(task, stop)

    def schedule_bug(self, task: Task) -> None:
        """``__schedule_bug``: report a task that sleeps with preemption off."""
        for hook in self.on_schedule_bug:
            hook(task)

    async def fault(self, task: Task, error: Exception) -> NoReturn:
        """Python code that stands in for the kernel has failed, on behalf of ``task``. For an address
        that is not there, that is the exception that the same code in C would have had; anything
        else is a bug of ours, and ends the task no less. Raises TaskExit."""
        await self.acquire(task)
        if isinstance(error, PageFault):
            vector = PAGE_FAULT if is_canonical(error.address) else GENERAL_PROTECTION
            await self.raise_exception(task, Stop(Why.EXCEPTION, error.address, vector))
        else:
            _log.error("a service failed", exc_info=error)
            for hook in self.on_service_bug:
                hook(task, error)
        raise TaskExit(SIGKILL, oops=True)

    async def synchronize_rcu(self) -> None:
        """Wait until every task that is inside a read-side section now has left it. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._pinned is not None:
            await self._unpinned.park()

    def registers(self, task: Task) -> dict[str, int]:
        """The registers of any task, also of one that does not run."""
        if task is self._running:
            return self.cpu.registers()
        return self.cpu.registers_of(task.context)

    def tick(self) -> None:
        """Keep ``jiffies`` in the guest up to date."""
        jiffies = self.clock.jiffies()
        if jiffies != self._last_jiffies:
            self._last_jiffies = jiffies
            self.computer.space.write_u64(self._jiffies, jiffies)

    def service_name(self, address: int) -> str:
        """The name of the kernel function at ``address``."""
        found = self.computer.symbols.lookup_address(address)
        return found[0].name if found else ""

    # -- tasks ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Task]:
        """All tasks but the idle one, oldest first (``for_each_process_thread``)."""
        return iter([task for task in self._tasks.values() if task is not self.idle])

    def find(self, pid: int) -> Task | None:
        """``find_task_by_vpid``."""
        return next((task for task in self if task.pid == pid), None)

    def parent_pid(self, task: Task) -> int:
        """The pid of ``real_parent``; 0 if it is no task of the guest."""
        parent = self._tasks.get(int(task.struct.real_parent))
        return parent.pid if parent else 0

    def at(self, address: int) -> Task:
        """The task whose task_struct is at ``address``. Raises OSError(ESRCH)."""
        task = self._tasks.get(address)
        if task is None:
            raise OSError(errno.ESRCH, f"no task at {address:#x}")
        return task

    def _adopt_init_task(self) -> Task:
        struct = self.computer.variable("struct task_struct", "init_task")
        stack = self.computer.map_pages(self.computer.vmalloc_area, THREAD_SIZE)
        struct.stack = stack
        self.computer.space.write_u64(self._current_task, struct.address_)
        task = Task(self, struct, stack)
        self._tasks[task.address] = task
        return task

    def new_task(self, comm: str, pid: int, parent: Task | None, flags: int = 0) -> Task:
        """``copy_process``: a task that does not run yet."""
        space = self.computer.space
        struct = self._dup_task_struct()
        stack = (
            self._stacks.pop()
            if self._stacks
            else self.computer.map_pages(self.computer.vmalloc_area, THREAD_SIZE)
        )
        struct.stack = stack
        struct.pid = struct.tgid = pid
        struct.flags = flags
        struct.comm = comm.encode("utf-8", "surrogateescape")[:15]
        struct.usage.refs.counter = 1
        struct.real_parent = (parent or self.idle).address
        space.list_add_tail(
            struct.member_address_("tasks"), self.idle.struct.member_address_("tasks")
        )
        task = Task(self, struct, stack)
        for hook in self.on_fork:
            hook(task, parent)
        self._tasks[task.address] = task
        return task

    def _dup_task_struct(self) -> Struct:
        """A task_struct with what the first task has, which is in no list and runs (kernel/fork.c)."""
        space, init_task = self.computer.space, self.idle.struct
        size = space.types.sizeof("struct task_struct")
        struct: Struct = space.view("struct task_struct", self._slab.alloc(size, "task_struct"))
        memory, address = self.computer.memory, struct.address_
        data = bytearray(memory.read(init_task.address_, size))
        for offset in self._list_heads:
            _LIST_HEAD.pack_into(data, offset, address + offset, address + offset)
        memory.write(address, bytes(data))
        self.task_state.set(struct, int(TaskState.RUNNING))
        struct.thread_info.flags = 0
        if self._cpus_ptr is not None:
            # Where it may run: a mask of its own, which migrate_enable() of PREEMPT_RT looks for.
            self._cpus_ptr.set(struct, struct.member_address_("cpus_mask"))
        return struct

    def release_task(self, task: Task) -> None:
        """The task has ended: off the list, its memory given back."""
        for hook in self.on_release:
            hook(task)
        task.struct.flags |= PF_EXITING
        task.state = TaskState.DEAD
        del self._tasks[task.address]
        self.computer.space.list_del(task.struct.member_address_("tasks"))
        if self._running is task:
            self.switch_to(self.idle)
        self._stacks.append(task.stack)
        self.put_task_struct(task.struct)
        task.ended.set()

    def put_task_struct(self, struct: Struct) -> None:
        """Give up a reference to a task_struct; the last one frees it."""
        references = struct.usage.refs
        references.counter -= 1
        if not references.counter:
            self.free_task_struct(struct.address_)

    def free_task_struct(self, address: int) -> None:
        """Nobody holds the task_struct of a task that has ended any longer."""
        self._slab.free(address)

    @asynccontextmanager
    async def user_task(self, pid: int, comm: str) -> AsyncIterator[Task]:
        """A process of the host inside the guest's kernel, for as long as its operation lasts."""
        task = self.new_task(comm, pid, None)
        token = _current.set(task)
        try:
            yield task
        finally:
            for hook in self.on_leave_kernel:
                hook(task)
            self.schedule_debug(task)
            _current.reset(token)
            self.release_task(task)

    def create_kthread(
        self, comm: str, main: Callable[[Task], Awaitable[int]], *, sleeping: bool = False
    ) -> Task:
        """``kthread_create``: a kernel thread that runs ``main``, once it is woken if ``sleeping``."""
        self._next_kthread += 1
        parent = self.kthreadd or self.idle
        task = self.new_task(comm, self._next_kthread, parent, PF_KTHREAD)
        if sleeping:
            task.state = TaskState.UNINTERRUPTIBLE

        async def run() -> None:
            _current.set(task)
            try:
                if sleeping:
                    await task.wait()
                task.exit_code = await main(task)
            except TaskExit as exit_:
                task.exit_code = exit_.code
            except Exception as error:
                with suppress(TaskExit):
                    await self.fault(task, error)
            finally:
                self.schedule_debug(task)
                self.release_task(task)

        async def root() -> None:
            try:
                await run()
            except Exception:  # guest code has spoilt what a task is made of; the others go on
                _log.exception("the end of %s failed", comm)

        self.nursery.start_soon(root, name=comm)
        return task


class _Pin:
    def __init__(self, sched: Scheduler, task: Task) -> None:
        self._sched, self._task = sched, task
        self._mine = False

    def __enter__(self) -> None:
        if self._sched.preempt_count or not self._sched.interrupts_on:
            self._sched._pinned = self._task
            self._mine = True

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._sched._pinned = None
            self._sched._unpinned.unpark_all()
