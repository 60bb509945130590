# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks and the scheduler, kernel/sched/core.c.

A guest task is a trio task with a register context and a kernel stack. The machine has one CPU, so one task
runs guest code at a time. Python code between two checkpoints runs like kernel code on one CPU with
preemption off: no other task runs.
"""

from __future__ import annotations

import errno
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from signal import SIGKILL
from typing import NoReturn

import trio

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import TRAP, Context, Stop, StopReason
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.sched.task import (
    PF_KTHREAD,
    THREAD_SIZE,
    TaskExit,
    TaskState,
    UserRegisters,
)
from klpfs.machine.kernel.service import Services
from klpfs.machine.kernel.trapnr import GENERAL_PROTECTION, PAGE_FAULT
from klpfs.machine.memory import PageFault, is_canonical
from klpfs.machine.structs import Struct

_INTERRUPT_FLAG = 1 << 9  # in EFLAGS
_TIF_SIGPENDING, _TIF_NOTIFY_SIGNAL = 1 << 2, 1 << 17
_MAX_NESTING = 64
_NO_RESCHED = 1 << 31  # PREEMPT_NEED_RESCHED, which is inverted
SIGNAL_GRACE = 1.0
"""Seconds of real time that a task with a pending signal may run guest code before it is killed."""

_SERVICES_PER_SLICE = 64
_SLICE_SECONDS = 0.002

_log = logging.getLogger(__name__)


class Task:
    """A guest task. ``struct`` is its task_struct in guest memory, which holds its state."""

    def __init__(self, sched: Scheduler, struct: Struct, stack: int) -> None:
        self._sched = sched
        self.struct = struct
        self.address: int = struct.address_
        self.pid: int = struct.pid
        self.stack = stack
        """Lowest address of the kernel stack."""
        self.context: Context = sched.cpu.initial_context()
        self.depth = 0
        """Number of calls from Python into guest code that are on the stack."""
        self.function = 0
        """Guest function of a kernel thread; 0 if its main loop is in Python."""
        self.entered = False
        """True once it has run guest code."""
        self.held = False
        """True while the freezer stops it, at the entry of the kernel or at a safe point."""
        self.preempted = False
        """True while it is stopped between two instructions of guest code, where its stack may be
        incomplete."""
        self.service = ""
        """Name of the kernel function that it waits in, as in /proc/<pid>/wchan."""
        self.on_sleep: Callable[[], None] | None = None
        """Called before it sleeps (``wq_worker_sleeping``)."""
        self.on_resume: Callable[[], None] | None = None
        """Called when it runs again (``wq_worker_running``)."""
        self.shield: trio.CancelScope | None = None
        """Shielded scope of a process of the host. A cancellation from outside of the scope is a signal
        for the process."""
        self.fatal_signal: Callable[[], bool] = lambda: False
        """For a process of the host: returns whether it has a fatal signal (``fatal_signal_pending``)."""
        self.abandoned = False
        """True if it was killed in its sleep. Its stack may be part of a wait queue and is not reused."""
        self.user_registers: Callable[[], UserRegisters | None] | None = None
        """For a process of the host: returns its registers at the system call, or None if the host does
        not show them."""
        self.atomic_since: int | None = None
        """Start of the time in which it was only seen with preemption or interrupts off (nanoseconds since
        boot)."""
        self.switches = 0
        """Number of its voluntary context switches (``nvcsw``)."""
        self._signalled_since: float | None = None
        self._woken = trio.Event()
        self.ended = trio.Event()
        self.exit_code = 0

    @property
    def comm(self) -> str:
        """The name of the task."""
        name: str = self.struct.comm.string()
        return name

    @property
    def is_kthread(self) -> bool:
        """True if it is a kernel thread, which never returns to user space."""
        return bool(self.struct.flags & PF_KTHREAD)

    @property
    def state(self) -> TaskState:
        """Its ``__state``: running, or how it sleeps."""
        return TaskState(getattr(self.struct, "__state"))

    @state.setter
    def state(self, value: int) -> None:
        setattr(self.struct, "__state", int(value))

    @property
    def signal_pending(self) -> bool:
        """``signal_pending()``. A task with a pending signal does not sleep interruptibly."""
        return bool(self.struct.thread_info.flags & (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL))

    @signal_pending.setter
    def signal_pending(self, pending: bool) -> None:
        info = self.struct.thread_info
        info.flags &= ~(_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL)
        if pending:
            info.flags |= _TIF_NOTIFY_SIGNAL

    def registers(self) -> dict[str, int]:
        """Return its registers at the point where it stopped."""
        return self._sched.registers(self)

    def wake(self, states: int = ~0) -> bool:
        """``try_to_wake_up``: make the task runnable. Returns False if it is in none of ``states``."""
        if not self.state & states:
            return False
        self.state = TaskState.RUNNING
        self._woken.set()
        return True

    async def wait(self, seconds: float | None = None) -> bool:
        """``schedule``, ``schedule_timeout``: sleep until this task is woken, or only let other tasks run
        if its state is RUNNING. Returns False after ``seconds`` of guest time. A checkpoint."""
        if self.state == TaskState.RUNNING:
            self._sched.clock.slice_over()
            await trio.lowlevel.checkpoint()
            self._check_signal()
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
        """Sleep until the task is woken, or has a signal if its state is INTERRUPTIBLE."""
        if self.shield is None:
            await self._woken.wait()
            return
        if not self.state & TaskState.INTERRUPTIBLE:
            await self._sleep_uninterruptible(self.shield)
            return
        self.shield.shield = False
        try:
            await self._woken.wait()
        except trio.Cancelled:
            if not self._host_signal_pending():
                raise
            self.signal_pending = True
            self.state = TaskState.RUNNING
        finally:
            self.shield.shield = True
        await trio.lowlevel.checkpoint()

    async def _sleep_uninterruptible(self, shield: trio.CancelScope) -> None:
        """Sleep until the task is woken. Raises TaskExit if its process has a fatal signal.

        Linux lets the task sleep on. Here the process of the host would be as hard to get rid of, so the
        task is killed `SIGNAL_GRACE` after the signal.
        """
        while not self._woken.is_set():
            shield.shield = False
            try:
                await self._woken.wait()
                return
            except trio.Cancelled:
                if not self._host_signal_pending():
                    raise
            finally:
                shield.shield = True
            with trio.move_on_after(SIGNAL_GRACE):
                await self._woken.wait()
                return
            if self.fatal_signal():
                for hook in self._sched.on_killed_asleep:
                    hook(self)
                self.abandoned = True
                raise TaskExit(SIGKILL)

    def _host_signal_pending(self) -> bool:
        """Return whether this task is a process of the host that has a pending signal."""
        if self.shield is None or self.shield.cancel_called:  # cancelled: the machine is off
            return False
        self.shield.shield = False
        try:
            return trio.current_effective_deadline() == -math.inf
        finally:
            self.shield.shield = True

    async def call(self, function: int, *arguments: int, on_leak: OnLeak | None = None) -> int:
        """Run the guest function at ``function`` on this task's stack. Returns RAX, unsigned.

        ``on_leak`` is called if the outermost function returns with another preempt count or with
        interrupts off. Without ``on_leak``, another preempt count is reported like sleeping with
        preemption off. Afterwards the preempt count is as before.

        Raises TaskExit if the task dies. A checkpoint only if the function runs for longer than a slice,
        or waits.
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
            if sched._pinned is None:  # as make_task_dead() does
                sched.preempt_count = 0
            raise
        finally:
            self.depth -= 1
            sched.switch_to(self)
            cpu.restore(outer)

    def _check_leak(self, before: int, on_leak: OnLeak | None) -> None:
        """Report a function that has changed the preempt count, which was ``before``, and restore it."""
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
        """Set up stack and registers as if a call instruction had just entered ``function``."""
        sched, cpu = self._sched, self._sched.cpu
        if self.depth > _MAX_NESTING:
            raise OSError(errno.ELOOP, "too many nested calls between guest and services")
        if self.depth > 1:
            # Push a frame for the Python service, as a C function would have: the unwinder follows the
            # chain of frames through it.
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
                if stop.reason is StopReason.TRAP:
                    if sched.is_return(stop.address):
                        return cpu["rax"]
                    await self._serve(stop.address)
                    if sched.slice_used():
                        await self._preempt(reliable=True)
                    continue
            except Exception as error:  # a service failed: the guest has passed bad arguments
                await sched.fault(self, error)
            if stop.reason is StopReason.EXCEPTION:
                await sched.raise_exception(self, stop)
            elif stop.reason is StopReason.HALT:
                await self._halt()
            else:
                await self._preempt()

    async def _serve(self, address: int) -> None:
        """Run the ``async`` service whose trap is at ``address``."""
        sched = self._sched
        start = sched.services.async_services[address]()
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
        """End a slice: let other tasks run, unless preemption is off. ``reliable`` means that the task is
        stopped at the end of a service, where its stack is complete."""
        sched = self._sched
        self.preempted = not reliable
        sched.clock.slice_over()
        try:
            with sched.pin(self):
                await sched.clock.give_way()
                sched.check_atomic(self)
        finally:
            self.preempted = False
        self._check_signal()

    async def _halt(self) -> None:
        """Run a ``hlt`` instruction: wait for the next interrupt, which is a timer tick."""
        sched = self._sched
        self.preempted = True
        try:
            with sched.pin(self):
                while True:
                    await sched.clock.idle()
                    sched.check_atomic(self)
                    self._check_signal()
                    await sched.acquire(self)
                    if sched.interrupts_on:
                        break
        finally:
            self.preempted = False

    def _check_signal(self) -> None:
        """Mark the task if its process has a pending signal. Raises TaskExit if it ignores the signal.

        Linux lets a task that ignores signals loop for ever. Here the process of the host would hang as
        well, and could not even be killed, so the task is killed after `SIGNAL_GRACE`.
        """
        if not self._host_signal_pending():
            self._signalled_since = None
            return
        self.signal_pending = True
        now = trio.current_time()
        if self._signalled_since is None:
            self._signalled_since = now
        elif now - self._signalled_since > SIGNAL_GRACE:
            self._signalled_since = None  # guest code that cleans up gets the same time again
            for hook in self._sched.on_signal_ignored:
                hook(self)
            raise TaskExit(SIGKILL)


OnLeak = Callable[[int, int, bool], None]
"""Called with the preempt count before and after a call, and whether interrupts are off now."""
ExceptionHandler = Callable[[Task, Stop], Awaitable[None]]
ForkHook = Callable[[Task, Task | None], None]

current_task: ContextVar[Task] = ContextVar("current_task")
"""The guest task on whose behalf Python code runs; not set for the idle task."""


class Scheduler:
    """The scheduler: the task that runs, and the list of all tasks."""

    def __init__(self, computer: Computer, clock: Clock, *, services: Services) -> None:
        self.computer = computer
        self.cpu = computer.cpu
        self.clock = clock
        self.services = services
        self.on_exception: list[ExceptionHandler] = []
        """Called with a task that had an exception. A handler may raise TaskExit."""
        self.on_schedule_bug: list[Callable[[Task], None]] = []
        """Called with a task that sleeps with preemption off (``__schedule_bug``)."""
        self.on_service_bug: list[Callable[[Task, Exception], None]] = []
        """Called with a task and the exception that its service does not expect."""
        self.on_atomic: list[Callable[[Task], None]] = []
        """Called with a task that has preemption off at the end of a slice; may raise TaskExit."""
        self.on_might_sleep: list[Callable[[str, int], None]] = []
        """Called with file and line of a function that may sleep, in atomic context (``__might_resched``)."""
        self.on_signal_ignored: list[Callable[[Task], None]] = []
        """Called with a task that is killed because it ignores a signal."""
        self.on_killed_asleep: list[Callable[[Task], None]] = []
        """Called with a task that a fatal signal kills in an uninterruptible sleep."""
        self.on_fork: list[ForkHook] = []
        """Called with each new task before it runs, and its parent (``copy_process``). The parent is None
        for a process of the host."""
        self.on_leave_kernel: list[Callable[[Task], None]] = []
        """Called with a user task that returns to user space (``exit_to_user_mode``)."""
        self.on_release: list[Callable[[Task], None]] = []
        """Called with a task that has ended, before it is removed."""
        self.gate: Callable[[Task], Awaitable[None]] | None = None
        """Called with a task before it runs guest code, and after each service. It waits while
        `klpfs.machine.kernel.sched.freezer` keeps the task out of the kernel."""
        self._pinned: Task | None = None
        self._unpinned = trio.lowlevel.ParkingLot()
        self._jiffies = computer.symbol("jiffies")
        self._last_jiffies = 0
        self._served = 0
        self._slice_end = 0.0
        self._current_task = computer.per_cpu("current_task")
        self._preempt_count = computer.per_cpu("__preempt_count")
        computer.space.write_u32(self._preempt_count, _NO_RESCHED)  # as after boot: enabled
        self.guest_return = computer.symbols.lookup("guest_return") or self._page_for_a_trap()
        """Return address of a guest function that Python has called; the end of a stack."""
        self.nested_return = self._page_for_a_trap()
        """Return address of a guest function that a service has called; the stack goes on above it."""
        for address in (self.guest_return, self.nested_return):
            computer.memory.write(address, TRAP)
            self.cpu.set_trap(address, lambda: False)
        self.tasks: dict[int, Task] = {}
        """All tasks by the address of their task_struct, oldest first; kept by
        `klpfs.machine.kernel.sched.fork`."""
        self.idle = self._adopt_init_task()
        self.running = self.idle
        """The task whose registers are in the CPU."""

    def _page_for_a_trap(self) -> int:
        return self.computer.map_pages(
            self.computer.modules_area, len(TRAP), writable=False, executable=True
        )

    def is_return(self, address: int) -> bool:
        """Return whether ``address`` is the return address of a call from Python."""
        return address in (self.guest_return, self.nested_return)

    # -- the running task -------------------------------------------------------------------------

    @property
    def current(self) -> Task:
        """The guest task on whose behalf this Python code runs."""
        return current_task.get(self.idle)

    async def acquire(self, task: Task) -> None:
        """Give ``task`` the CPU. A checkpoint only while another task has preemption off."""
        while self._pinned not in (None, task):
            await self._unpinned.park()
        self.switch_to(task)

    def switch_to(self, task: Task) -> None:
        """``context_switch``: load the registers of ``task``."""
        if self.running is not task:
            self.running.context = self.cpu.save()
            self.cpu.restore(task.context)
            self.running = task
            self.computer.space.write_u64(self._current_task, task.address)

    def pin(self, task: Task) -> _Pin:
        """Return a context manager for a wait of ``task``. If ``task`` has preemption or interrupts off,
        no other task runs guest code until it ends."""
        return _Pin(self, task)

    @property
    def preempt_count(self) -> int:
        """``preempt_count()``: the CPU's preempt count without the inverted need-resched bit."""
        return int(self.computer.space.read_u32(self._preempt_count)) & ~_NO_RESCHED

    @preempt_count.setter
    def preempt_count(self, value: int) -> None:
        inverted = self.computer.space.read_u32(self._preempt_count) & _NO_RESCHED
        self.computer.space.write_u32(self._preempt_count, value | inverted)

    @property
    def need_resched(self) -> bool:
        """``need_resched()``: another task waits for the CPU."""
        return not self.computer.space.read_u32(self._preempt_count) & _NO_RESCHED

    def schedule_debug(self, task: Task) -> None:
        """``schedule_debug``: report a task that sleeps with preemption off, and switch preemption on."""
        if self._pinned is None and self.preempt_count:
            self.schedule_bug(task)
            self.preempt_count = 0

    @property
    def interrupts_on(self) -> bool:
        """True if the running task has interrupts enabled."""
        return bool(self.cpu["eflags"] & _INTERRUPT_FLAG)

    def slice_used(self) -> bool:
        """Count a call of a service. Returns True if the calls since the last True make up a slice.

        The slices of guest code end after a number of instructions. Code that calls services all the time
        would not get there.
        """
        self._served += 1
        if self._served < _SERVICES_PER_SLICE and (
            self.clock.virtual or time.monotonic() < self._slice_end
        ):
            return False
        self._served = 0
        self._slice_end = time.monotonic() + _SLICE_SECONDS
        return True

    def check_atomic(self, task: Task) -> None:
        """Check ``task`` after its slice. If it has preemption off, call `on_atomic`, and set need-resched
        so that its preempt_enable() calls the scheduler. May raise TaskExit."""
        if self._pinned is not task:
            task.atomic_since = None
            return
        if task.atomic_since is None:
            task.atomic_since = self.clock.now()
        self._set_need_resched(True)
        for hook in self.on_atomic:
            hook(task)

    def might_sleep(self, file: str, line: int) -> None:
        """``might_sleep``: call `on_might_sleep` if the current task is in atomic context."""
        if self.preempt_count or not self.interrupts_on:
            for hook in self.on_might_sleep:
                hook(file, line)

    def _set_need_resched(self, needed: bool) -> None:
        count = self.computer.space.read_u32(self._preempt_count)
        count = count & ~_NO_RESCHED if needed else count | _NO_RESCHED
        self.computer.space.write_u32(self._preempt_count, count)

    async def preempt_schedule(self) -> None:
        """``preempt_schedule``: let the tasks run that waited until preemption is on. A checkpoint."""
        self._set_need_resched(False)
        task = self.current
        task.atomic_since = None
        self.clock.slice_over()
        await trio.lowlevel.checkpoint()

    async def raise_exception(self, task: Task, stop: Stop) -> None:
        """Call the handlers of an exception of ``task``. Raises TaskExit if it ends the task."""
        for hook in self.on_exception:
            await hook(task, stop)

    def schedule_bug(self, task: Task) -> None:
        """``__schedule_bug``: report a task that sleeps with preemption off."""
        for hook in self.on_schedule_bug:
            hook(task)

    async def fault(self, task: Task, error: Exception) -> NoReturn:
        """Handle an exception of a service that ran for ``task``. A PageFault becomes the exception that
        the kernel's C function would have caused. All else is a bug of the service, and is reported as
        one. Raises TaskExit."""
        await self.acquire(task)
        if isinstance(error, PageFault):
            vector = PAGE_FAULT if is_canonical(error.address) else GENERAL_PROTECTION
            await self.raise_exception(task, Stop(StopReason.EXCEPTION, error.address, vector))
        else:
            _log.error("bug in a kernel service", exc_info=error)
            for hook in self.on_service_bug:
                hook(task, error)
        raise TaskExit(SIGKILL, oops=True)

    async def synchronize_rcu(self) -> None:
        """Wait until every task has left the read-side section that it is in now. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._pinned is not None:
            await self._unpinned.park()

    def registers(self, task: Task) -> dict[str, int]:
        """Return the registers of a task, whether it runs or not."""
        if task is self.running:
            return self.cpu.registers()
        return self.cpu.registers_of(task.context)

    def tick(self) -> None:
        """Update ``jiffies`` in the guest."""
        jiffies = self.clock.jiffies()
        if jiffies != self._last_jiffies:
            self._last_jiffies = jiffies
            self.computer.space.write_u64(self._jiffies, jiffies)

    def service_name(self, address: int) -> str:
        """Return the name of the kernel function at ``address``, or an empty string."""
        found = self.computer.symbols.lookup_address(address)
        return found[0].name if found else ""

    # -- tasks ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Task]:
        """Iterate over all tasks except the idle task, oldest first (``for_each_process_thread``)."""
        return iter([task for task in self.tasks.values() if task is not self.idle])

    def find(self, pid: int) -> Task | None:
        """``find_task_by_vpid``: return the task with this pid, or None."""
        return next((task for task in self if task.pid == pid), None)

    def parent_pid(self, task: Task) -> int:
        """Return the pid of ``real_parent``; 0 if that is not a task of the guest."""
        parent = self.tasks.get(int(task.struct.real_parent))
        return parent.pid if parent else 0

    def at(self, address: int) -> Task:
        """Return the task whose task_struct is at ``address``. Raises OSError(ESRCH)."""
        task = self.tasks.get(address)
        if task is None:
            raise OSError(errno.ESRCH, f"no task at {address:#x}")
        return task

    def _adopt_init_task(self) -> Task:
        """Give the image's ``init_task`` a stack, and make it the current task."""
        struct = self.computer.variable("struct task_struct", "init_task")
        stack = self.computer.map_pages(self.computer.vmalloc_area, THREAD_SIZE)
        struct.stack = stack
        self.computer.space.write_u64(self._current_task, struct.address_)
        task = Task(self, struct, stack)
        self.tasks[task.address] = task
        return task


class _Pin:
    """The context manager of `Scheduler.pin`. The task that entered it keeps the CPU until it exits."""

    def __init__(self, sched: Scheduler, task: Task) -> None:
        self._sched, self._task = sched, task
        self._pinned = False

    def __enter__(self) -> None:
        if self._sched.preempt_count or not self._sched.interrupts_on:
            self._sched._pinned = self._task
            self._pinned = True

    def __exit__(self, *_: object) -> None:
        if self._pinned:
            self._sched._pinned = None
            self._sched._unpinned.unpark_all()
