# SPDX-License-Identifier: GPL-2.0-or-later
"""Timers, sleeping, and reading the time. kernel/time/timer.c, kernel/time/timekeeping.c,
include/linux/timer.h.

A timer is a struct timer_list in guest memory. Its function runs on ksoftirqd/0 with preemption off, as in a
softirq.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.clock import HZ
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskExit, TaskState
from klpfs.machine.kernel.sched.wait import IDLE, KILLABLE, Completion, schedule_timeout
from klpfs.machine.kernel.service import S64, U32, U64, Ptr, service
from klpfs.machine.limits import check_room
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import LIST_POISON2

SOFTIRQ_OFFSET = 1 << 8
"""Added to the preempt count in a softirq, include/linux/preempt.h."""
_STALE_ENTRIES = 64
_NSEC_PER_SEC = 1_000_000_000
_LONGEST_SPIN = 1.0
"""Seconds between two lockup checks of a task that is in udelay()."""
_TK_OFFS_BOOT = 1  # enum tk_offsets

Callback = Callable[[], None]


class _Entry:
    """An entry of the timer queue: the address of a guest timer, or a Python callback."""

    def __init__(self, ticks: int, order: int, timer: int | Callback) -> None:
        self.ticks = ticks
        self.order = order
        self.timer = timer

    def __lt__(self, other: _Entry) -> bool:
        return (self.ticks, self.order) < (other.ticks, other.order)


class Timers:
    """The timers of one kernel, and the functions that sleep and read the time."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._sched = base.sched
        self._fork = base.fork
        self._clock = base.clock
        self._bugs = base.bugs
        self._queue: list[_Entry] = []
        self._pending: dict[int | Callback, _Entry] = {}
        self._order = itertools.count()
        self._ksoftirqd: Task | None = None
        self._running: tuple[int, Completion] | None = None
        self._symbols = base.computer.symbols
        self._warned_of_leak = False
        self.direct: dict[int, Callable[[int], None]] = {}
        """Python replacements of guest timer functions, by address. They are called directly when the timer
        expires."""

    def start(self) -> None:
        """Create ksoftirqd/0."""
        self._ksoftirqd = self._fork.create_kthread("ksoftirqd/0", self._run_ksoftirqd)

    # -- for services -----------------------------------------------------------------------------

    def call_later(self, ticks: int, callback: Callback) -> None:
        """Call ``callback`` after ``ticks``, at the next tick at the earliest."""
        self._enqueue(callback, self._clock.ticks() + ticks)

    def add(self, timer: int, expires: int) -> bool:
        """``__mod_timer``: start a timer, or move it, so that it expires when jiffies are ``expires``.
        Returns whether it was pending."""
        pending = self.delete(timer)
        view = self._space.view("struct timer_list", timer)
        view.expires = expires
        # Guest code only checks whether the node is hashed (timer_pending()).
        view.entry.next = 0
        view.entry.pprev = view.member_address_("entry.next")
        away = (expires - self._clock.jiffies() + (1 << 63)) % (1 << 64) - (1 << 63)
        self._enqueue(timer, self._clock.ticks() + away)
        return pending

    def delete(self, timer: int) -> bool:
        """``timer_delete``: stop a timer. Returns whether it was pending."""
        if self._pending.pop(timer, None) is None:
            return False
        self._detach(timer)
        return True

    async def delete_sync(self, timer: int) -> bool:
        """``timer_delete_sync``: stop a timer, and wait until its function has returned. Returns whether it
        was pending."""
        pending = self.delete(timer)
        task = self._sched.current
        while task is not self._ksoftirqd and self._running and self._running[0] == timer:
            await self._running[1].wait(task)
        return pending

    def _detach(self, timer: int) -> None:
        """``detach_timer``"""
        entry = self._space.view("struct timer_list", timer).entry
        entry.pprev = 0
        entry.next = LIST_POISON2

    def _enqueue(self, timer: int | Callback, ticks: int) -> None:
        if len(self._queue) > 2 * len(self._pending) + _STALE_ENTRIES:
            self._queue = sorted(self._pending.values())
        check_room(self._pending)
        # A timer expires at the next tick at the earliest.
        entry = _Entry(max(ticks, self._clock.ticks() + 1), next(self._order), timer)
        self._pending[timer] = entry
        heapq.heappush(self._queue, entry)
        if self._queue[0] is entry and self._ksoftirqd:
            self._ksoftirqd.wake()

    # -- ksoftirqd --------------------------------------------------------------------------------

    async def _run_ksoftirqd(self, task: Task) -> int:
        try:
            while True:
                task.state = TaskState.INTERRUPTIBLE
                seconds = self._seconds_to_next()
                if seconds is None or seconds > 0:
                    await task.wait(seconds)
                task.state = TaskState.RUNNING
                await self._run_timers(task)
        except TaskExit:
            self.start()
            raise

    def _seconds_to_next(self) -> float | None:
        while self._queue and self._pending.get(self._queue[0].timer) is not self._queue[0]:
            heapq.heappop(self._queue)
        return self._clock.seconds_until(self._queue[0].ticks) if self._queue else None

    async def _run_timers(self, task: Task) -> None:
        while self._seconds_to_next() == 0:
            timer = heapq.heappop(self._queue).timer
            del self._pending[timer]
            if not isinstance(timer, int):
                timer()
                continue
            try:
                self._detach(timer)
                function = int(self._space.view("struct timer_list", timer).function)
                if function in self.direct:
                    self.direct[function](timer)
                    continue
            except PageFault as fault:  # the memory was freed without deleting the timer
                await self._sched.fault(task, fault)
            await self._call_timer_fn(task, function, timer)

    async def _call_timer_fn(self, task: Task, function: int, timer: int) -> None:
        """``call_timer_fn``: call the function of a timer with preemption off."""
        sched = self._sched
        await sched.acquire(task)
        done = Completion()
        self._running = timer, done
        sched.preempt_count += SOFTIRQ_OFFSET

        def on_leak(before: int, after: int, _irqs_off: bool) -> None:
            if self._warned_of_leak:
                return
            self._warned_of_leak = True
            name = self._symbols.sprint_symbol(function)
            message = f"timer: {name} preempt leak: {before:08x} -> {after:08x}"
            self._bugs.warn("kernel/time/timer.c", 1707, "call_timer_fn", message)

        try:
            await task.call(function, timer, on_leak=on_leak)
        finally:
            sched.preempt_count = 0
            self._running = None
            done.complete_all()

    # -- struct timer_list ------------------------------------------------------------------------

    @service("add_timer")
    def add_timer(self, timer: Ptr) -> None:
        self.add(timer, int(self._space.view("struct timer_list", timer).expires))

    @service("add_timer_on", embedded=False)
    def add_timer_on(self, timer: Ptr, _cpu: U32) -> None:
        self.add_timer(timer)

    @service("mod_timer")
    def mod_timer(self, timer: Ptr, expires: U64) -> bool:
        return self.add(timer, expires)

    @service("mod_timer_pending", embedded=False)
    def mod_timer_pending(self, timer: Ptr, expires: U64) -> bool:
        return timer in self._pending and self.add(timer, expires)

    @service("del_timer")
    def del_timer(self, timer: Ptr) -> bool:
        return self.delete(timer)

    @service("del_timer_sync")
    async def del_timer_sync(self, timer: Ptr) -> bool:
        return await self.delete_sync(timer)

    @service("try_to_del_timer_sync", embedded=False)
    def try_to_del_timer_sync(self, timer: Ptr) -> int:
        if self._running and self._running[0] == timer:
            return -1
        return self.delete(timer)

    # -- jiffies ----------------------------------------------------------------------------------

    @service("round_jiffies")
    def round_jiffies(self, jiffies: U64) -> int:
        """Round to a whole second, unless the result has passed. Timers then expire together."""
        rest = jiffies % HZ
        rounded = jiffies - rest + (0 if rest < HZ // 4 else HZ)
        is_after = (rounded - self._clock.jiffies()) % (1 << 64) - 1 < (1 << 63) - 1
        return rounded if is_after else jiffies

    @service("round_jiffies_relative")
    def round_jiffies_relative(self, jiffies: U64) -> int:
        now = self._clock.jiffies()
        return self.round_jiffies((jiffies + now) % (1 << 64)) - now

    # -- sleeping ---------------------------------------------------------------------------------

    @service("schedule", "io_schedule")
    @service("schedule_rtlock", embedded=False)
    async def schedule(self) -> None:
        await self._sched.current.wait()

    @service("preempt_schedule_common")
    async def preempt_schedule_common(self) -> None:
        await self._sched.preempt_schedule()

    @service("preempt_schedule_notrace", embedded=False)
    async def preempt_schedule_notrace(self) -> None:
        if not self._sched.preempt_count and self._sched.interrupts_on:
            await self._sched.preempt_schedule()

    @service("schedule_timeout")
    @service("io_schedule_timeout", embedded=False)
    async def schedule_timeout(self, timeout: S64) -> int:
        if timeout < 0:
            self._sched.current.state = TaskState.RUNNING
            return 0
        return await schedule_timeout(self._sched, timeout)

    async def _schedule_timeout_in(self, state: int, timeout: int) -> int:
        self._sched.current.state = TaskState(state)
        return await self.schedule_timeout(timeout)

    @service("schedule_timeout_interruptible")
    async def schedule_timeout_interruptible(self, timeout: S64) -> int:
        return await self._schedule_timeout_in(TaskState.INTERRUPTIBLE, timeout)

    @service("schedule_timeout_killable")
    async def schedule_timeout_killable(self, timeout: S64) -> int:
        return await self._schedule_timeout_in(KILLABLE, timeout)

    @service("schedule_timeout_uninterruptible")
    async def schedule_timeout_uninterruptible(self, timeout: S64) -> int:
        return await self._schedule_timeout_in(TaskState.UNINTERRUPTIBLE, timeout)

    @service("schedule_timeout_idle", embedded=False)
    async def schedule_timeout_idle(self, timeout: S64) -> int:
        return await self._schedule_timeout_in(IDLE, timeout)

    @service("msleep")
    async def msleep(self, milliseconds: U32) -> None:
        """Sleep for at least ``milliseconds``, and exactly as long with a virtual clock."""
        end = self._clock.now() + milliseconds * 1_000_000
        task = self._sched.current
        while (left := end - self._clock.now()) > 0:
            task.state = TaskState.UNINTERRUPTIBLE
            if not await task.wait(left / _NSEC_PER_SEC):
                break

    @service("msleep_interruptible")
    async def msleep_interruptible(self, milliseconds: U32) -> int:
        """Like `msleep`, until a signal is pending. Returns the milliseconds that are left, rounded up to
        ticks."""
        end = self._clock.now() + milliseconds * 1_000_000
        task = self._sched.current
        while (left := end - self._clock.now()) > 0:
            if task.signal_pending:
                tick = _NSEC_PER_SEC // HZ
                return -(-left // tick) * (1000 // HZ)
            task.state = TaskState.INTERRUPTIBLE
            if not await task.wait(left / _NSEC_PER_SEC):
                break
        return 0

    @service("usleep_range_state")
    async def usleep_range_state(self, least: U64, _most: U64, state: U32) -> None:
        end = self._clock.now() + least * 1000
        task = self._sched.current
        while (left := end - self._clock.now()) > 0:
            task.state = TaskState(state)
            if not await task.wait(left / _NSEC_PER_SEC):
                break

    @service("__udelay")
    async def udelay(self, microseconds: U64) -> None:
        await self._delay(microseconds * 1000)

    @service("__ndelay")
    async def ndelay(self, nanoseconds: U64) -> None:
        await self._delay(nanoseconds)

    async def _delay(self, nanoseconds: int) -> None:
        """Wait with the CPU kept, as a busy loop would, but without load on the host."""
        end = self._clock.now() + nanoseconds
        task = self._sched.current
        with self._sched.pin(task):
            while True:
                left = (end - self._clock.now()) / _NSEC_PER_SEC
                await self._clock.sleep(min(max(left, 0), _LONGEST_SPIN))
                if left <= _LONGEST_SPIN:
                    break
                self._sched.check_atomic(task)

    @service("yield")
    async def yield_(self) -> None:
        task = self._sched.current
        task.state = TaskState.RUNNING
        await task.wait()

    @service("__cond_resched")
    async def cond_resched(self) -> int:
        """Let other tasks run. Returns 0, because it is not known whether one has."""
        with self._sched.pin(self._sched.current):
            await self._clock.sleep(0)
        return 0

    # -- reading the time -------------------------------------------------------------------------

    @service(
        "ktime_get",
        "ktime_get_ns",
        "ktime_get_boottime",
        "ktime_get_boottime_ns",
        "sched_clock",
        "local_clock",
    )
    @service(
        "ktime_get_raw",
        "ktime_get_mono_fast_ns",
        "ktime_get_raw_fast_ns",
        "ktime_get_boot_fast_ns",
        embedded=False,
    )
    def ktime_get(self) -> int:
        return self._clock.now()

    @service("ktime_get_real", "ktime_get_real_ns")
    @service("ktime_get_real_fast_ns", embedded=False)
    def ktime_get_real(self) -> int:
        return self._clock.boot_time + self._clock.now()

    @service("ktime_get_with_offset")
    @service("ktime_get_coarse_with_offset", embedded=False)
    def ktime_get_with_offset(self, offset: U32) -> int:
        return self.ktime_get() if offset == _TK_OFFS_BOOT else self.ktime_get_real()

    @service("ktime_get_seconds")
    def ktime_get_seconds(self) -> int:
        return self.ktime_get() // _NSEC_PER_SEC

    @service("ktime_get_real_seconds")
    def ktime_get_real_seconds(self) -> int:
        return self.ktime_get_real() // _NSEC_PER_SEC

    def _put_timespec(self, address: int, nanoseconds: int) -> None:
        timespec = self._space.view("struct timespec64", address)
        timespec.tv_sec, timespec.tv_nsec = divmod(nanoseconds, _NSEC_PER_SEC)

    @service("ktime_get_ts64", "ktime_get_boottime_ts64")
    @service("ktime_get_raw_ts64", "ktime_get_coarse_ts64", embedded=False)
    def ktime_get_ts64(self, timespec: Ptr) -> None:
        self._put_timespec(timespec, self.ktime_get())

    @service("ktime_get_real_ts64")
    @service("ktime_get_coarse_real_ts64", embedded=False)
    def ktime_get_real_ts64(self, timespec: Ptr) -> None:
        self._put_timespec(timespec, self.ktime_get_real())

    @service("getboottime64")
    def getboottime64(self, timespec: Ptr) -> None:
        self._put_timespec(timespec, self._clock.boot_time)

    @service("get_jiffies_64", embedded=False)
    def get_jiffies_64(self) -> int:
        return self._clock.jiffies()
