# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks, completions, wait queues, timers, sleep, kernel threads and workqueues.

They are called as guest code calls them: through traps, from several tasks, by machine code that
sleeps in them.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop
from klpfs.machine.image import embedded
from klpfs.machine.kernel import base as base_of_a_kernel
from klpfs.machine.kernel.clock import HZ, INITIAL_JIFFIES, Clock, VirtualClock
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskExit, TaskState
from klpfs.machine.kernel.work.build import build as build_work

ERESTARTSYS = 512
TIME_LIMIT = 20
U64 = (1 << 64) - 1
settle = trio.testing.wait_all_tasks_blocked


class Machine:
    """A computer with the services under test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.computer = computer = Computer(embedded.load(), memory_size=64 << 20)
        self.space = computer.space
        base = base_of_a_kernel.build(computer, clock)
        self.slab = base.slab
        self.sched = base.sched
        self.fork = base.fork
        self.printk = base.printk
        work = build_work(base)
        self.mutexes = work.mutexes
        self.timers = work.timers
        self.workqueues = work.workqueues
        self.oopses: list[Stop] = []
        self.sched.on_exception[:] = [self._oops]
        self._code = computer.map_pages(computer.modules_area, 1 << 16, executable=True)

    async def _oops(self, task: Task, stop: Stop) -> None:
        self.oopses.append(stop)
        raise TaskExit(9, oops=True)

    async def boot(self, nursery: trio.Nursery) -> None:
        self.fork.start(nursery)
        self.timers.start()
        self.workqueues.start()
        await settle()

    def __getitem__(self, name: str) -> int:
        return self.computer.symbol(name)

    # -- guest code -------------------------------------------------------------------------------

    def alloc(self, size: int = 64) -> int:
        return self.slab.alloc(size, "test")

    def text(self, string: str) -> int:
        address = self.alloc(len(string) + 1)
        self.computer.memory.write(address, string.encode() + b"\0")
        return address

    def new(self, type_name: str, *list_heads: str) -> Any:
        view = self.space.view(type_name, self.alloc(self.space.types.sizeof(type_name)))
        for member in list_heads:
            self.space.init_list_head(view.member_address_(member))
        return view

    def work(self, function: int) -> Any:
        work = self.new("struct work_struct", "entry")
        work.data.counter = 0xFFFFFFFE0
        work.func = function
        return work

    def delayed_work(self, function: int) -> Any:
        delayed = self.new("struct delayed_work", "work.entry")
        delayed.work.data.counter = 0xFFFFFFFE0
        delayed.work.func = function
        delayed.timer.function = self["delayed_work_timer_fn"]
        return delayed

    def function(self, *steps: bytes) -> int:
        """Write a function made of steps into the guest; return its address."""
        code = b"\x55\x48\x89\xe5" + b"".join(steps) + b"\x5d\xc3"  # push rbp; mov rbp, rsp; ...
        address = self._code
        self.computer.memory.write(address, code)
        self._code += len(code)
        return address

    def call(self, name: str, *arguments: int) -> bytes:
        """Return a step that calls an exported function."""
        loads = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x48\xb9")  # mov rdi / rsi / rdx / rcx
        code = b"".join(
            load + struct.pack("<Q", value & U64)
            for load, value in zip(loads, arguments, strict=False)
        )
        return code + b"\x48\xb8" + struct.pack("<Q", self[name]) + b"\xff\xd0"

    @staticmethod
    def increment(address: int) -> bytes:
        return b"\x49\xba" + struct.pack("<Q", address) + b"\x49\xff\x02"  # mov r10; inc [r10]

    @staticmethod
    def until(condition: bytes, body: bytes) -> bytes:
        """Return a step ``while (!condition) body``."""
        head = condition + b"\x84\xc0\x75" + bytes([len(body) + 2])  # test al, al; jnz
        return head + body + b"\xeb" + bytes([256 - len(head) - len(body) - 2])  # jmp

    @staticmethod
    def result(value: int) -> bytes:
        return b"\xb8" + struct.pack("<I", value & 0xFFFFFFFF)

    # -- tasks ------------------------------------------------------------------------------------

    def spawn(self, main: Callable[[Task], Awaitable[int]], name: str = "test") -> Task:
        return self.fork.create_kthread(name, main)

    async def on_task(self, name: str, *arguments: int) -> int:
        """Run a guest function in its own task; return its result as a signed long."""
        return await _Call(self, name, arguments).result()

    def start(self, name: str, *arguments: int) -> _Call:
        return _Call(self, name, arguments)

    def tasks(self, prefix: str) -> list[str]:
        return [task.comm for task in self.sched if task.comm.startswith(prefix)]

    def log(self) -> list[str]:
        return [record.text for record in self.printk.records()]


class _Call:
    """A call in progress in its own task."""

    def __init__(self, machine: Machine, name: str, arguments: tuple[int, ...]) -> None:
        self.returned: int | None = None

        async def main(task: Task) -> int:
            function = machine[name] if isinstance(name, str) else name
            value = await task.call(function, *(argument & U64 for argument in arguments))
            self.returned = value - (value >> 63 << 64)
            return 0

        self.task = machine.spawn(main)

    async def result(self) -> int:
        await self.task.ended.wait()
        assert self.returned is not None
        return self.returned


@asynccontextmanager
async def booted(clock: Clock) -> AsyncIterator[Machine]:
    machine = Machine(clock)
    with trio.fail_after(TIME_LIMIT):
        async with trio.open_nursery() as nursery:
            await machine.boot(nursery)
            yield machine
            nursery.cancel_scope.cancel()
    machine.computer.cpu.close()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    """Return a machine with a virtual clock, which `advance` moves."""
    async with booted(VirtualClock()) as machine:
        yield machine


async def advance(machine: Machine, seconds: float) -> None:
    assert isinstance(machine.clock, VirtualClock)
    await machine.clock.advance(seconds)


def s32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)


# -- mutexes --------------------------------------------------------------------------------------


async def test_mutex_goes_from_one_task_to_the_next_in_line(machine: Machine) -> None:
    mutex = machine.new("struct mutex", "wait_list")
    order = []

    def contender(n: int) -> Callable[[Task], Awaitable[int]]:
        async def main(task: Task) -> int:
            await task.call(machine["mutex_lock"], mutex.address_)
            assert mutex.owner.counter & U64 & ~7 == task.address
            order.append(n)
            await task.call(machine["msleep"], 10)
            order.append(n)
            await task.call(machine["mutex_unlock"], mutex.address_)
            return 0

        return main

    tasks = []
    for n in range(4):  # in this order; trio starts tasks in a random one
        tasks.append(machine.spawn(contender(n)))
        await settle()
    assert [task.service for task in tasks] == ["msleep", *["mutex_lock"] * 3]
    assert mutex.owner.counter & 1  # MUTEX_FLAG_WAITERS
    await advance(machine, 1)
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]
    assert mutex.owner.counter == 0


async def test_mutex_trylock_and_is_locked(machine: Machine) -> None:
    mutex = machine.new("struct mutex", "wait_list").address_
    assert await machine.on_task("mutex_is_locked", mutex) == 0
    assert await machine.on_task("mutex_trylock", mutex) == 1
    assert await machine.on_task("mutex_trylock", mutex) == 0
    assert await machine.on_task("mutex_is_locked", mutex) == 1


async def test_mutex_lock_interruptible_gives_up_on_a_signal(machine: Machine) -> None:
    mutex = machine.new("struct mutex", "wait_list")
    async with machine.mutexes.mutex(mutex.address_):
        call = machine.start("mutex_lock_interruptible", mutex.address_)
        await settle()
        assert call.task.state == TaskState.INTERRUPTIBLE
        call.task.signal_pending = True
        call.task.wake(TaskState.INTERRUPTIBLE)
        assert s32(await call.result()) == -errno.EINTR
    assert mutex.owner.counter == 0


async def test_a_cancelled_waiter_does_not_keep_the_mutex(machine: Machine) -> None:
    mutex = machine.new("struct mutex", "wait_list").address_

    async def waits() -> None:
        async with machine.fork.user_task(4711, "cat"), machine.mutexes.mutex(mutex):
            pytest.fail("it was cancelled")

    async with trio.open_nursery() as nursery:
        async with machine.mutexes.mutex(mutex):
            nursery.start_soon(waits)
            await settle()
            nursery.cancel_scope.cancel()
        assert not machine.mutexes.mutex_trylock(mutex)  # handed over to the cancelled task
    assert machine.mutexes.mutex_trylock(mutex)


async def test_unlocking_the_mutex_of_another_is_reported(machine: Machine) -> None:
    mutex = machine.new("struct mutex", "wait_list").address_
    await machine.mutexes.lock(mutex)
    await machine.on_task("mutex_unlock", mutex)
    assert machine.log()[-1].startswith("DEBUG_LOCKS_WARN_ON(__mutex_owner(lock) != current)")
    assert await machine.on_task("mutex_is_locked", mutex) == 0


async def test_a_bad_pointer_is_an_oops_of_the_caller_only(machine: Machine) -> None:
    for name in ("mutex_trylock", "mutex_lock"):
        call = machine.start(name, 0x10)
        await call.task.ended.wait()
        assert call.returned is None
        assert machine.oopses.pop()[1:] == (0x10, 14)
    mutex = machine.new("struct mutex", "wait_list").address_
    assert await machine.on_task("mutex_trylock", mutex) == 1


# -- semaphores -----------------------------------------------------------------------------------


async def test_semaphore(machine: Machine) -> None:
    semaphore = machine.new("struct semaphore", "wait_list")
    semaphore.count = 2
    address = semaphore.address_
    await machine.on_task("down", address)
    assert await machine.on_task("down_trylock", address) == 0
    assert await machine.on_task("down_trylock", address) == 1
    first = machine.start("down", address)
    await settle()
    second = machine.start("down", address)
    await settle()
    await machine.on_task("up", address)
    await settle()
    assert (first.returned is None, second.returned is None) == (False, True)
    assert semaphore.count == 0
    await machine.on_task("up", address)
    await machine.on_task("up", address)
    assert semaphore.count == 1


async def test_down_timeout_and_down_interruptible(machine: Machine) -> None:
    address = machine.new("struct semaphore", "wait_list").address_
    late = machine.start("down_timeout", address, HZ)
    signalled = machine.start("down_interruptible", address)
    await advance(machine, 0.9)
    assert late.returned is None
    await advance(machine, 0.1)
    assert s32(await late.result()) == -errno.ETIME
    signalled.task.signal_pending = True
    signalled.task.wake(TaskState.INTERRUPTIBLE)
    assert s32(await signalled.result()) == -errno.EINTR


async def test_rw_semaphore_lets_readers_in_together_and_writers_alone(machine: Machine) -> None:
    address = machine.new("struct rw_semaphore", "wait_list").address_
    await machine.on_task("down_read", address)
    await machine.on_task("down_read", address)
    assert await machine.on_task("down_write_trylock", address) == 0
    writer = machine.start("down_write", address)
    await settle()
    readers = [machine.start("down_read", address) for _ in range(2)]
    await settle()
    assert writer.returned is None
    assert readers[0].returned is None  # behind the writer
    await machine.on_task("up_read", address)
    await machine.on_task("up_read", address)
    await writer.result()
    assert await machine.on_task("down_read_trylock", address) == 0
    await machine.on_task("up_write", address)
    for reader in readers:
        await reader.result()
    for _ in range(2):
        await machine.on_task("up_read", address)
    assert await machine.on_task("down_write_trylock", address) == 1


# -- completions ----------------------------------------------------------------------------------


async def test_complete_wakes_one_waiter_and_complete_all_wakes_all(machine: Machine) -> None:
    completion = machine.new("struct completion", "wait.task_list")
    address = completion.address_
    calls = []
    for _ in range(3):
        calls.append(machine.start("wait_for_completion", address))
        await settle()
    await machine.on_task("complete", address)
    await settle()
    assert [call.returned is None for call in calls] == [False, True, True]
    assert completion.done == 0
    await machine.on_task("complete_all", address)
    await settle()
    assert all(call.returned is not None for call in calls)
    assert completion.done == 0xFFFFFFFF
    assert await machine.on_task("try_wait_for_completion", address) == 1
    assert await machine.on_task("completion_done", address) == 1


async def test_complete_before_the_wait_is_counted(machine: Machine) -> None:
    completion = machine.new("struct completion", "wait.task_list")
    await machine.on_task("complete", completion.address_)
    await machine.on_task("complete", completion.address_)
    assert completion.done == 2
    await machine.on_task("wait_for_completion", completion.address_)
    assert await machine.on_task("try_wait_for_completion", completion.address_) == 1
    assert await machine.on_task("try_wait_for_completion", completion.address_) == 0


async def test_wait_for_completion_timeout_returns_the_jiffies_left(machine: Machine) -> None:
    address = machine.new("struct completion", "wait.task_list").address_
    in_time = machine.start("wait_for_completion_timeout", address, 10 * HZ)
    await advance(machine, 4)
    await machine.on_task("complete", address)
    assert await in_time.result() == 6 * HZ
    too_late = machine.start("wait_for_completion_timeout", address, HZ)
    await advance(machine, 1)
    assert await too_late.result() == 0
    await machine.on_task("complete", address)
    assert await machine.on_task("wait_for_completion_timeout", address, 0) == 1


async def test_wait_for_completion_interruptible(machine: Machine) -> None:
    address = machine.new("struct completion", "wait.task_list").address_
    call = machine.start("wait_for_completion_interruptible", address)
    killable = machine.start("wait_for_completion_killable", address)
    await settle()
    for waiting in (call, killable):
        waiting.task.signal_pending = True
        waiting.task.wake(TaskState.INTERRUPTIBLE)
    assert s32(await call.result()) == -ERESTARTSYS
    assert killable.returned is None
    await machine.on_task("complete", address)
    assert s32(await killable.result()) == 0


# -- wait queues ----------------------------------------------------------------------------------


async def test_a_wait_queue_wakes_the_task_in_it(machine: Machine) -> None:
    head = machine.new("struct wait_queue_head", "head")
    entry = machine.new("struct wait_queue_entry")

    async def waiter(task: Task) -> int:
        await task.call(machine["init_wait_entry"], entry.address_, 0)
        await task.call(
            machine["prepare_to_wait_event"], head.address_, entry.address_, TaskState.INTERRUPTIBLE
        )
        await task.call(machine["schedule"])
        await task.call(machine["finish_wait"], head.address_, entry.address_)
        return 0

    task = machine.spawn(waiter)
    await settle()
    assert (task.service, task.state) == ("schedule", TaskState.INTERRUPTIBLE)
    await machine.on_task("__wake_up", head.address_, TaskState.UNINTERRUPTIBLE, 1, 0)
    assert not task.ended.is_set()
    await machine.on_task("__wake_up", head.address_, 3, 1, 0)
    await task.ended.wait()
    assert machine.space.list_empty(head.member_address_("head"))


async def test_prepare_to_wait_event_with_a_signal(machine: Machine) -> None:
    head = machine.new("struct wait_queue_head", "head")
    entry = machine.new("struct wait_queue_entry", "entry")
    got = []

    async def waiter(task: Task) -> int:
        task.signal_pending = True
        for state in (TaskState.INTERRUPTIBLE, TaskState.UNINTERRUPTIBLE):
            got.append(
                s32(
                    await task.call(
                        machine["prepare_to_wait_event"], head.address_, entry.address_, state
                    )
                )
            )
        return 0

    await machine.spawn(waiter).ended.wait()
    assert got == [-ERESTARTSYS, 0]


async def test_one_exclusive_waiter_is_woken(machine: Machine) -> None:
    head = machine.new("struct wait_queue_head", "head").address_
    woken = []

    def waiter(n: int, prepare: str) -> Callable[[Task], Awaitable[int]]:
        async def main(task: Task) -> int:
            entry = machine.new("struct wait_queue_entry").address_
            await task.call(machine["init_wait_entry"], entry, 0)
            await task.call(machine[prepare], head, entry, TaskState.UNINTERRUPTIBLE)
            await task.call(machine["schedule"])
            await task.call(machine["finish_wait"], head, entry)
            woken.append(n)
            return 0

        return main

    for n, prepare in enumerate(("prepare_to_wait_exclusive",) * 2 + ("prepare_to_wait",)):
        machine.spawn(waiter(n, prepare))
        await settle()
    await machine.on_task("__wake_up", head, 3, 1, 0)
    await settle()
    assert sorted(woken) == [0, 2]
    await machine.on_task("__wake_up", head, 3, 1, 0)
    await settle()
    assert sorted(woken) == [0, 1, 2]


async def test_sleeping_with_preemption_off_is_a_bug_that_is_reported(machine: Machine) -> None:
    reported = []
    machine.sched.on_schedule_bug[:] = [lambda task: reported.append(machine.sched.preempt_count)]
    count = machine["__preempt_count"]
    atomic = machine.function(
        b"\x49\xba" + struct.pack("<Q", count) + b"\x41\xff\x02",  # mov r10; inc dword [r10]
        machine.call("msleep", 10),
    )

    async def main(task: Task) -> int:
        await task.call(atomic)
        return 0

    task = machine.spawn(main)
    await advance(machine, 1)
    assert task.ended.is_set()
    assert reported == [1]
    assert machine.sched.preempt_count == 0


# -- timers and sleeping --------------------------------------------------------------------------


async def test_msleep_takes_its_time_and_no_more(machine: Machine) -> None:
    call = machine.start("msleep", 1500)
    await advance(machine, 1.4999)
    assert call.returned is None
    assert call.task.state == TaskState.UNINTERRUPTIBLE
    await advance(machine, 0.0001)
    await call.result()
    assert machine.clock.now() == 1_500_000_000


async def test_msleep_is_not_cut_short_by_a_wake_up(machine: Machine) -> None:
    call = machine.start("msleep", 1000)
    await advance(machine, 0.5)
    call.task.wake()
    await settle()
    assert call.returned is None
    await advance(machine, 0.5)
    await call.result()


async def test_msleep_interruptible_returns_what_is_left(machine: Machine) -> None:
    call = machine.start("msleep_interruptible", 1000)
    await advance(machine, 0.25)
    call.task.signal_pending = True
    call.task.wake(TaskState.INTERRUPTIBLE)
    assert await call.result() == 752  # whole ticks of 4 ms
    assert await machine.on_task("msleep_interruptible", 0) == 0


async def test_schedule_timeout_returns_the_jiffies_left(machine: Machine) -> None:
    call = machine.start("schedule_timeout_interruptible", 2 * HZ)
    await advance(machine, 0.5)
    assert await machine.on_task("wake_up_process", call.task.address) == 1
    assert await call.result() == 3 * HZ // 2
    over = machine.start("schedule_timeout_uninterruptible", HZ)
    await advance(machine, 1)
    assert await over.result() == 0
    assert await machine.on_task("schedule_timeout", 7) == 7  # it does not sleep: it is running


async def test_jiffies_and_ktime(machine: Machine) -> None:
    await advance(machine, 2)
    assert await machine.on_task("ktime_get") == 2_000_000_000
    assert await machine.on_task("ktime_get_seconds") == 2
    await machine.on_task("yield")
    assert machine.space.read_u64(machine["jiffies"]) == (INITIAL_JIFFIES + 2 * HZ) & U64
    timespec = machine.new("struct timespec64")
    await advance(machine, 0.25)
    await machine.on_task("ktime_get_ts64", timespec.address_)
    assert (timespec.tv_sec, timespec.tv_nsec) == (2, 250_000_000)


async def test_a_timer_runs_in_a_softirq_when_its_time_has_come(machine: Machine) -> None:
    count = machine.alloc()
    seen: list[tuple[str, int]] = []
    callback = machine.function(machine.increment(count), machine.call("__cond_resched"))
    timer = machine.new("struct timer_list")
    timer.function = callback
    real = machine.sched.tick

    def spy() -> None:
        seen.append((machine.sched.current.comm, machine.sched.preempt_count))
        real()

    expires = machine.clock.jiffies() + HZ
    assert await machine.on_task("mod_timer", timer.address_, expires) == 0
    assert timer.entry.pprev
    assert timer.expires == expires & U64
    await advance(machine, 0.99)
    assert machine.space.read_u64(count) == 0
    machine.sched.tick = spy  # type: ignore[method-assign]
    await advance(machine, 0.01)
    assert machine.space.read_u64(count) == 1
    assert set(seen) == {("ksoftirqd/0", 0x100)}
    assert machine.sched.preempt_count == 0
    assert not timer.entry.pprev
    await advance(machine, 5)
    assert machine.space.read_u64(count) == 1


async def test_timers_move_and_stop(machine: Machine) -> None:
    count = machine.alloc()
    timer = machine.new("struct timer_list")
    timer.function = machine.function(machine.increment(count))
    timer.expires = machine.clock.jiffies() + HZ
    await machine.on_task("add_timer", timer.address_)
    assert await machine.on_task("mod_timer", timer.address_, machine.clock.jiffies() + 3 * HZ) == 1
    await advance(machine, 2)
    assert machine.space.read_u64(count) == 0
    assert await machine.on_task("del_timer", timer.address_) == 1
    assert await machine.on_task("del_timer_sync", timer.address_) == 0
    await advance(machine, 5)
    assert machine.space.read_u64(count) == 0


async def test_a_timer_can_start_itself_again(machine: Machine) -> None:
    count = machine.alloc()
    timer = machine.new("struct timer_list")
    # It expires at once, but runs only once per tick.
    timer.function = machine.function(
        machine.increment(count), machine.call("mod_timer", timer.address_, INITIAL_JIFFIES)
    )
    await machine.on_task("mod_timer", timer.address_, INITIAL_JIFFIES)
    await advance(machine, 1)
    assert machine.space.read_u64(count) == HZ


async def test_an_oops_in_a_timer_leaves_the_others(machine: Machine) -> None:
    bad, good = machine.new("struct timer_list"), machine.new("struct timer_list")
    count = machine.alloc()
    bad.function = 0xDEAD0000
    good.function = machine.function(machine.increment(count))
    for timer in (bad, good):
        await machine.on_task("mod_timer", timer.address_, machine.clock.jiffies() + 10)
    await advance(machine, 1)
    assert len(machine.oopses) == 1
    assert machine.space.read_u64(count) == 1
    assert machine.sched.preempt_count == 0
    assert machine.tasks("ksoftirqd") == ["ksoftirqd/0"]


async def test_sleeping_on_the_host_s_clock() -> None:
    async with booted(Clock()) as machine:
        start = trio.current_time()
        await machine.on_task("msleep", 30)
        assert 0.03 <= trio.current_time() - start < 5


# -- kernel threads -------------------------------------------------------------------------------


async def create(machine: Machine, function: int, data: int = 0, name: str = "thread") -> int:
    fmt = machine.text(name + "/%d-%s")
    node = -1
    return (
        await machine.on_task(
            "kthread_create_on_node", function, data, node, fmt, 7, machine.text("x")
        )
        & U64
    )


async def test_kthread_runs_when_it_is_woken_and_stops_when_it_is_told(machine: Machine) -> None:
    count = machine.alloc()
    loop = machine.function(
        machine.until(
            machine.call("kthread_should_stop"),
            machine.increment(count) + machine.call("msleep_interruptible", 1000),
        ),
        machine.result(42),
    )
    address = await create(machine, loop)
    task = machine.sched.at(address)
    assert task.comm == "thread/7-x"
    await advance(machine, 5)
    assert machine.space.read_u64(count) == 0
    assert await machine.on_task("wake_up_process", address) == 1
    await advance(machine, 2.5)
    assert machine.space.read_u64(count) == 3
    assert s32(await machine.on_task("kthread_stop", address)) == 42  # woken from its sleep
    assert task.ended.is_set()
    assert address not in machine.slab.allocations()


async def test_kthread_that_never_ran_returns_eintr(machine: Machine) -> None:
    count = machine.alloc()
    address = await create(machine, machine.function(machine.increment(count)))
    assert s32(await machine.on_task("kthread_stop", address)) == -errno.EINTR
    assert machine.space.read_u64(count) == 0


async def test_kthread_that_ended_by_itself_can_still_be_stopped(machine: Machine) -> None:
    address = await create(machine, machine.function(machine.result(-5)))
    await machine.on_task("wake_up_process", address)
    await settle()
    assert address in machine.slab.allocations()
    assert await machine.on_task("wake_up_process", address) == 0
    assert s32(await machine.on_task("kthread_stop", address)) == -5
    assert address not in machine.slab.allocations()


async def test_kthread_data_and_complete_and_exit(machine: Machine) -> None:
    completion = machine.new("struct completion", "wait.task_list")
    function = machine.function(
        machine.call("kthread_complete_and_exit", completion.address_, 3), machine.result(1)
    )
    address = await create(machine, function, data=0x1234)
    assert await machine.on_task("kthread_data", address) == 0x1234
    await machine.on_task("wake_up_process", address)
    await machine.on_task("wait_for_completion", completion.address_)
    assert s32(await machine.on_task("kthread_stop", address)) == 3


async def test_kthread_park(machine: Machine) -> None:
    count = machine.alloc()
    loop = machine.function(
        machine.until(
            machine.call("kthread_should_stop"),
            machine.call("kthread_parkme")
            + machine.increment(count)
            + machine.call("msleep_interruptible", 1000),
        ),
    )
    address = await create(machine, loop)
    await machine.on_task("wake_up_process", address)
    await advance(machine, 1.5)
    parking = machine.start("kthread_park", address)
    await advance(machine, 1)
    assert s32(await parking.result()) == 0
    await advance(machine, 10)
    assert machine.space.read_u64(count) == 2
    await machine.on_task("kthread_unpark", address)
    await advance(machine, 1)
    assert machine.space.read_u64(count) == 4
    await machine.on_task("kthread_stop", address)


async def test_an_oops_of_a_kthread_ends_only_it(machine: Machine) -> None:
    address = await create(machine, 0xDEAD0000)
    await machine.on_task("wake_up_process", address)
    await settle()
    assert len(machine.oopses) == 1
    assert s32(await machine.on_task("kthread_stop", address)) == 0


# -- work queues ----------------------------------------------------------------------------------


def system_wq(machine: Machine, name: str = "system_wq") -> int:
    address: int = machine.space.read_u64(machine[name])
    return address


async def test_work_runs_once_for_a_queueing(machine: Machine) -> None:
    count = machine.alloc()
    work = machine.work(machine.function(machine.increment(count)))
    assert "kworker/0:0" in machine.tasks("kworker")
    async with trio.open_nursery() as nursery:

        async def queue_twice() -> None:
            async with machine.fork.user_task(4711, "insmod") as task:
                queue_work_on, wq = machine["queue_work_on"], system_wq(machine)
                assert await task.call(queue_work_on, 0, wq, work.address_) == 1
                assert await task.call(queue_work_on, 0, wq, work.address_) == 0
                assert work.data.counter & 1
                assert await task.call(machine["flush_work"], work.address_) == 1
                assert await task.call(machine["flush_work"], work.address_) == 0

        nursery.start_soon(queue_twice)
    assert machine.space.read_u64(count) == 1
    assert not work.data.counter & 1


async def test_another_worker_starts_when_one_sleeps(machine: Machine) -> None:
    count = machine.alloc()
    sleepers = [
        machine.work(machine.function(machine.call("msleep", 1000), machine.increment(count)))
        for _ in range(5)
    ]
    for work in sleepers:
        await machine.on_task("queue_work_on", 0, system_wq(machine), work.address_)
    await settle()
    assert len(machine.tasks("kworker/0:")) >= 6
    await advance(machine, 1)
    assert machine.space.read_u64(count) == 5
    await advance(machine, 1000)
    assert len(machine.tasks("kworker/0:")) == 3  # two idle ones, and that of WQ_HIGHPRI


async def test_an_ordered_queue_does_one_thing_after_the_other(machine: Machine) -> None:
    fmt, flags = machine.text("mine-%d"), 1 << 1 | 1 << 17
    wq = await machine.on_task("alloc_workqueue", fmt, flags, 1, 9) & U64
    assert machine.space.read_string(wq) == "mine-9"
    count = machine.alloc()
    works = [
        machine.work(machine.function(machine.call("msleep", 1000), machine.increment(count)))
        for _ in range(3)
    ]
    for work in works:
        await machine.on_task("queue_work_on", 0, wq, work.address_)
    flush = machine.start("__flush_workqueue", wq)
    await advance(machine, 2)
    assert machine.space.read_u64(count) == 2
    assert flush.returned is None
    destroy = machine.start("destroy_workqueue", wq)
    await advance(machine, 1)
    assert machine.space.read_u64(count) == 3
    await flush.result()
    await destroy.result()
    assert wq not in machine.slab.allocations()


async def test_work_that_queues_itself_does_not_run_twice_at_a_time(machine: Machine) -> None:
    started, ended = machine.alloc(), machine.alloc()
    work = machine.work(0)
    work.func = machine.function(
        machine.increment(started), machine.call("msleep", 1000), machine.increment(ended)
    )
    wq = system_wq(machine, "system_unbound_wq")
    await machine.on_task("queue_work_on", 0, wq, work.address_)
    await settle()
    assert await machine.on_task("queue_work_on", 0, wq, work.address_) == 1
    assert await machine.on_task("work_busy", work.address_) == 3
    await settle()
    assert machine.space.read_u64(started) == 1
    await advance(machine, 1)
    assert (machine.space.read_u64(started), machine.space.read_u64(ended)) == (2, 1)
    await advance(machine, 1)
    assert machine.space.read_u64(ended) == 2
    assert await machine.on_task("work_busy", work.address_) == 0


async def test_delayed_work(machine: Machine) -> None:
    count = machine.alloc()
    delayed = machine.delayed_work(machine.function(machine.increment(count)))
    wq, address = system_wq(machine), delayed.address_
    assert await machine.on_task("queue_delayed_work_on", 0, wq, address, HZ) == 1
    assert await machine.on_task("queue_delayed_work_on", 0, wq, address, HZ) == 0
    assert delayed.work.data.counter & 1
    assert delayed.timer.entry.pprev
    await advance(machine, 0.5)
    assert await machine.on_task("mod_delayed_work_on", 0, wq, address, HZ) == 1
    await advance(machine, 0.9)
    assert machine.space.read_u64(count) == 0
    await advance(machine, 0.1)
    assert machine.space.read_u64(count) == 1
    assert await machine.on_task("mod_delayed_work_on", 0, wq, address, 0) == 0
    await settle()
    assert machine.space.read_u64(count) == 2
    await machine.on_task("queue_delayed_work_on", 0, wq, address, 10 * HZ)
    assert await machine.on_task("flush_delayed_work", address) == 1
    assert machine.space.read_u64(count) == 3
    await machine.on_task("queue_delayed_work_on", 0, wq, address, 10 * HZ)
    assert await machine.on_task("cancel_delayed_work", address) == 1
    assert await machine.on_task("cancel_delayed_work", address) == 0
    await advance(machine, 20)
    assert machine.space.read_u64(count) == 3


async def test_cancel_delayed_work_sync_beats_work_that_queues_itself(machine: Machine) -> None:
    started, ended = machine.alloc(), machine.alloc()
    delayed = machine.delayed_work(0)
    wq, address = system_wq(machine), delayed.address_
    delayed.work.func = machine.function(
        machine.increment(started),
        machine.call("msleep", 500),
        machine.call("queue_delayed_work_on", 0, wq, address, HZ),
        machine.increment(ended),
    )
    await machine.on_task("queue_delayed_work_on", 0, wq, address, HZ)
    await advance(machine, 1.2)
    cancel = machine.start("cancel_delayed_work_sync", address)
    other = machine.start("cancel_delayed_work_sync", address)
    await settle()
    assert cancel.returned is None
    await advance(machine, 100)
    assert await cancel.result() == 0
    assert await other.result() == 0
    assert (machine.space.read_u64(started), machine.space.read_u64(ended)) == (1, 1)
    assert not delayed.work.data.counter & 1


async def test_cancel_work_sync_takes_back_what_waits(machine: Machine) -> None:
    wq = await machine.on_task("alloc_workqueue", machine.text("one"), 0, 1) & U64
    count = machine.alloc()
    first = machine.work(machine.function(machine.call("msleep", 1000)))
    second = machine.work(machine.function(machine.increment(count)))
    await machine.on_task("queue_work_on", 0, wq, first.address_)
    await machine.on_task("queue_work_on", 0, wq, second.address_)
    assert await machine.on_task("cancel_work_sync", second.address_) == 1
    assert await machine.on_task("cancel_work_sync", second.address_) == 0
    await advance(machine, 2)
    assert machine.space.read_u64(count) == 0
    await machine.on_task("destroy_workqueue", wq)


async def test_a_worker_that_dies_is_replaced(machine: Machine) -> None:
    count = machine.alloc()
    bad = machine.work(machine.function(machine.call("msleep", 10), b"\x0f\x0b"))
    good = machine.work(machine.function(machine.increment(count)))
    for work in (bad, good, bad, good):
        await machine.on_task("queue_work_on", 0, system_wq(machine), work.address_)
        flush = machine.start("flush_work", work.address_)
        await advance(machine, 0.1)
        await flush.result()
    assert len(machine.oopses) == 2
    assert machine.space.read_u64(count) == 2


async def test_work_whose_memory_is_gone(machine: Machine) -> None:
    area = machine.computer.vmalloc_area
    page = machine.computer.map_pages(area, 4096)
    delayed = machine.space.view("struct delayed_work", page)
    delayed.timer.function = machine["delayed_work_timer_fn"]
    await machine.on_task("queue_delayed_work_on", 0, system_wq(machine), page, HZ)
    machine.computer.unmap_pages(area, page, 4096)
    await advance(machine, 2)
    assert machine.oopses[0].vector == 14
    count = machine.alloc()
    work = machine.work(machine.function(machine.increment(count)))
    await machine.on_task("queue_work_on", 0, system_wq(machine), work.address_)
    await settle()
    assert machine.space.read_u64(count) == 1


async def test_work_of_python(machine: Machine) -> None:
    done: list[tuple[str, int]] = []

    async def function() -> None:
        done.append((machine.sched.current.comm, machine.clock.now()))
        if len(done) < 3:
            machine.workqueues.queue_delayed(function, 1.0)

    machine.workqueues.queue(function)
    machine.workqueues.queue(function)
    await settle()
    assert len(done) == 1
    machine.workqueues.queue_delayed(function, 5.0)  # it is pending already, for one second
    await advance(machine, 10)
    assert [now for _, now in done] == [0, 1_000_000_000, 2_000_000_000]
    assert all(comm.startswith("kworker/0:") for comm, _ in done)


async def test_an_idle_machine_sleeps() -> None:
    async with booted(Clock()) as machine:
        before = trio.lowlevel.current_statistics()
        machine.workqueues.queue_delayed(trio.lowlevel.checkpoint, 3600)
        await settle()
        with trio.move_on_after(0.2):
            await trio.sleep_forever()
        after = trio.lowlevel.current_statistics()
        assert after.tasks_runnable == 0
        assert before.tasks_living == after.tasks_living
        assert after.seconds_to_next_deadline > 10  # the time limit of the test
