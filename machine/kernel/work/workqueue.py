# SPDX-License-Identifier: GPL-2.0-or-later
"""Workqueues: work items that kernel threads execute later. kernel/workqueue.c.

A work item is a struct work_struct in guest memory, or an async function in Python. The items of a workqueue
are executed by a pool of workers. In a bound pool one worker runs at a time; when it sleeps, another one
starts. In the unbound pool each item gets a worker at once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Awaitable, Callable

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.clock import HZ
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import PF_WQ_WORKER, TaskExit, TaskState
from klpfs.machine.kernel.sched.wait import IDLE, Completion
from klpfs.machine.kernel.service import S32, U32, U64, Ptr, service
from klpfs.machine.kernel.vsprintf import text, vscnprintf_here
from klpfs.machine.kernel.work.timer import Timers
from klpfs.machine.limits import check_room
from klpfs.machine.memory import PageFault

IDLE_WORKER_SECONDS = 300.0
"""Time after which an idle worker that is not needed exits (IDLE_WORKER_TIMEOUT)."""
_SPARE_WORKERS = 2
_WQ_NAME_LEN = 24
_WQ_MAX_ACTIVE, _WQ_DFL_ACTIVE = 512, 256
_PENDING = 1
_PENDING_BUSY, _RUNNING_BUSY = 1, 2


class WqFlags(enum.IntFlag):
    """Flags of alloc_workqueue(), include/linux/workqueue.h."""

    UNBOUND = 1 << 1
    HIGHPRI = 1 << 4
    CPU_INTENSIVE = 1 << 5


_SYSTEM_QUEUES = {
    "system_wq": ("events", 0),
    "system_highpri_wq": ("events_highpri", WqFlags.HIGHPRI),
    "system_long_wq": ("events_long", 0),
    "system_unbound_wq": ("events_unbound", WqFlags.UNBOUND),
    "system_freezable_wq": ("events_freezable", 0),
    "system_power_efficient_wq": ("events_power_efficient", 0),
    "system_freezable_power_efficient_wq": ("events_freezable_power_efficient", 0),
}
"""Name and flags of the workqueues that variables of the kernel point to."""

Function = Callable[[], Awaitable[None]]
Key = int | Function
"""Identity of a work item: the address of the work_struct, or the Python function."""


class _Item:
    """A work item that has been queued once. ``done`` is set when it was executed or cancelled."""

    def __init__(self, key: Key, queue: _Workqueue) -> None:
        self.key = key
        self.queue = queue
        self.done = Completion()


class _Workqueue:
    """``struct workqueue_struct``, with its one ``pool_workqueue``."""

    def __init__(self, name: str, flags: int, max_active: int, pool: _Pool) -> None:
        self.name = name
        self.flags = flags
        self.max_active = max_active
        self.pool = pool
        self.nr_active = 0
        self.inactive: deque[_Item] = deque()
        self.items: dict[_Item, None] = {}
        """All items that are queued or executed, in the order of queueing."""
        self.draining = False


class _Worker:
    """``struct worker``"""

    def __init__(self, pool: _Pool, number: int) -> None:
        self.pool = pool
        self.number = number
        self.task: Task
        self.item: _Item | None = None
        self.function = 0
        self.scheduled: deque[_Item] = deque()
        """Items with the same work as `item`, which this worker executes next."""
        self.counted = False
        """True if ``pool.nr_running`` includes this worker."""
        self.asleep = False
        self.idle = False


class _Pool:
    """``struct worker_pool``"""

    def __init__(self, name: str, *, bound: bool) -> None:
        self.name = name
        self.bound = bound
        self.worklist: deque[_Item] = deque()
        self.workers: set[_Worker] = set()
        self.idle: list[_Worker] = []
        self.nr_running = 0

    def need_more_worker(self) -> bool:
        return bool(self.worklist) and not self.nr_running

    def keep_working(self) -> bool:
        return bool(self.worklist) and self.nr_running <= 1

    def wake_up_worker(self) -> None:
        if self.idle:
            self.idle[-1].task.wake()

    def count(self, worker: _Worker, running: bool) -> None:
        if self.bound and worker.counted != running:
            worker.counted = running
            self.nr_running += 1 if running else -1


class Workqueues:
    """The workqueues of one kernel, and their workers."""

    def __init__(self, base: Base, timers: Timers) -> None:
        self._computer = computer = base.computer
        self._space = computer.space
        self._sched = base.sched
        self._fork = base.fork
        self._slab = base.slab
        self._timers = timers
        self._printk = base.printk
        self._normal = _Pool("0:{}", bound=True)
        self._highpri = _Pool("0:{}H", bound=True)
        self._unbound = _Pool("u2:{}", bound=False)
        self._queues: dict[int, _Workqueue] = {}
        self._pending: dict[Key, _Item] = {}
        self._delayed: set[Function] = set()
        self._canceling: dict[int, Completion] = {}
        self._worker_of: dict[Task, _Worker] = {}
        self._system: _Workqueue
        timer_fn = computer.symbols.lookup("delayed_work_timer_fn")
        if timer_fn is not None:
            timers.direct[timer_fn] = self.delayed_work_timer_fn

    def start(self) -> None:
        """``workqueue_init``: create the system workqueues and the first workers. Call this after
        `Fork.start`."""
        for variable, (name, flags) in _SYSTEM_QUEUES.items():
            at = self._computer.symbols.lookup(variable)
            if at is None:
                continue
            address = self._space.read_u64(at) or self._alloc(name)
            self._space.write_u64(at, address)
            self._queues[address] = self._new(name, flags, 0)
        self._system = self._queues[self._space.read_u64(self._computer.symbol("system_wq"))]
        for pool in (self._normal, self._highpri, self._unbound):
            self._create_worker(pool)

    # -- for services -----------------------------------------------------------------------------

    def queue(self, function: Function) -> None:
        """``schedule_work``: run an async function on a worker. Does nothing if it is queued already."""
        if function not in self._pending:
            self._queue_work(self._system, function)

    def queue_delayed(self, function: Function, seconds: float) -> None:
        """``schedule_delayed_work``: queue an async function after ``seconds`` of guest time, rounded to
        ticks. Does nothing if it is queued or delayed already."""
        if function in self._delayed or function in self._pending:
            return

        def expired() -> None:
            self._delayed.discard(function)
            self.queue(function)

        self._delayed.add(function)
        self._timers.call_later(round(seconds * HZ), expired)

    # -- queueing ---------------------------------------------------------------------------------

    def _at(self, address: int) -> _Workqueue:
        """Return the workqueue at ``address``. Raises PageFault if there is none."""
        queue = self._queues.get(address)
        if queue is None:
            raise PageFault(address)
        return queue

    def _work_data(self, work: int) -> int:
        return int(self._space.view("struct work_struct", work).data.counter)

    def _test_and_set_pending(self, work: int) -> bool:
        data = self._space.view("struct work_struct", work).data
        was = bool(data.counter & _PENDING)
        data.counter |= _PENDING
        return was

    def _clear_pending(self, work: int) -> None:
        self._space.view("struct work_struct", work).data.counter &= ~_PENDING

    def _queue_work(self, queue: _Workqueue, key: Key) -> None:
        """``__queue_work``: queue an item. Logs a warning and drops the item if the queue is draining."""
        if queue.draining and not self._is_chained_work(queue):
            self._printk(
                LOGLEVEL_WARNING, f"workqueue: work queued on {queue.name}, which is drained"
            )
            return
        check_room(self._pending)
        item = _Item(key, queue)
        self._pending[key] = item
        queue.items[item] = None
        if queue.nr_active < queue.max_active:
            queue.nr_active += 1
            self._insert_work(item)
        else:
            queue.inactive.append(item)

    def _insert_work(self, item: _Item) -> None:
        """``insert_work``: put an item on the worklist of its pool, and wake a worker."""
        pool = item.queue.pool
        pool.worklist.append(item)
        if pool.need_more_worker():
            pool.wake_up_worker()

    def _is_chained_work(self, queue: _Workqueue) -> bool:
        """``is_chained_work``: return whether the current task executes an item of ``queue``."""
        worker = self._worker_of.get(self._sched.current)
        return bool(worker and worker.item and worker.item.queue is queue)

    def _finish(self, item: _Item) -> None:
        """``pwq_dec_nr_in_flight``: remove an item that was executed or cancelled from its queue."""
        queue = item.queue
        del queue.items[item]
        if item in queue.inactive:
            queue.inactive.remove(item)
        else:
            queue.nr_active -= 1
            if queue.inactive and queue.nr_active < queue.max_active:
                queue.nr_active += 1
                self._insert_work(queue.inactive.popleft())
        item.done.complete_all()

    # -- workers ----------------------------------------------------------------------------------

    def _create_worker(self, pool: _Pool) -> None:
        """``create_worker``: start a worker with the first free number."""
        taken = {worker.number for worker in pool.workers}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        worker = _Worker(pool, number)
        worker.task = task = self._fork.create_kthread(
            "kworker/" + pool.name.format(number), lambda task: self._worker_thread(worker)
        )
        task.struct.flags |= PF_WQ_WORKER
        task.state = IDLE
        task.on_sleep = lambda: self._worker_sleeping(worker)
        task.on_resume = lambda: self._worker_running(worker)
        pool.workers.add(worker)
        self._worker_of[task] = worker
        self._enter_idle(worker)
        if pool.need_more_worker():
            pool.wake_up_worker()

    def _enter_idle(self, worker: _Worker) -> None:
        worker.idle = True
        worker.pool.idle.append(worker)

    def _leave_idle(self, worker: _Worker) -> None:
        if worker.idle:
            worker.idle = False
            worker.pool.idle.remove(worker)

    def _worker_sleeping(self, worker: _Worker) -> None:
        """``wq_worker_sleeping``: let another worker run while this one sleeps."""
        if worker.counted:
            worker.asleep = True
            worker.pool.count(worker, False)
            if worker.pool.need_more_worker():
                worker.pool.wake_up_worker()

    def _worker_running(self, worker: _Worker) -> None:
        """``wq_worker_running``: count the worker again."""
        if worker.asleep:
            worker.asleep = False
            worker.pool.count(worker, True)

    async def _worker_thread(self, worker: _Worker) -> int:
        """``worker_thread``: the main function of a worker."""
        pool, task = worker.pool, worker.task
        try:
            while await self._wait_for_work(worker):
                if not pool.need_more_worker():
                    self._enter_idle(worker)
                    continue
                if not pool.idle:  # keep one in reserve, which runs when this one sleeps
                    self._create_worker(pool)
                pool.count(worker, True)
                while pool.keep_working():
                    await self._process_one_work(worker, pool.worklist.popleft())
                    while worker.scheduled:
                        await self._process_one_work(worker, worker.scheduled.popleft())
                pool.count(worker, False)
                self._enter_idle(worker)
        except TaskExit:
            self._replace_worker(worker)
            raise
        finally:
            self._detach_worker(worker)
            del self._worker_of[task]
        return 0

    async def _wait_for_work(self, worker: _Worker) -> bool:
        """Sleep until there is work. Returns False if the worker was idle for too long and has to exit."""
        task, pool = worker.task, worker.pool
        if not pool.need_more_worker():
            task.state = IDLE
            spare = pool.idle.index(worker) >= _SPARE_WORKERS
            woken = await task.wait(IDLE_WORKER_SECONDS if spare else None)
            if not woken and not pool.need_more_worker():
                return False
        task.state = TaskState.RUNNING
        self._leave_idle(worker)
        return True

    def _detach_worker(self, worker: _Worker) -> None:
        """``worker_detach_from_pool``: remove a worker, and put its scheduled items back on the worklist."""
        pool = worker.pool
        self._leave_idle(worker)
        worker.asleep = False
        pool.count(worker, False)
        pool.workers.discard(worker)
        pool.worklist.extendleft(reversed(worker.scheduled))
        worker.scheduled.clear()

    def _replace_worker(self, worker: _Worker) -> None:
        """Replace a worker that was killed by the work that it executed, so that other work goes on."""
        pool = worker.pool
        self._detach_worker(worker)
        if not pool.idle:
            self._create_worker(pool)
        elif pool.need_more_worker():
            pool.wake_up_worker()

    def _find_worker_executing_work(self, key: Key) -> _Worker | None:
        """``find_worker_executing_work``: return the worker that executes an item, or None."""
        for worker in self._worker_of.values():
            if not worker.item or worker.item.key != key:
                continue
            # If the function is another one, the work was freed, and its memory holds a new work.
            if callable(key) or worker.function == self._work_func(key):
                return worker
        return None

    def _work_func(self, work: int) -> int:
        return int(self._space.view("struct work_struct", work).func)

    async def _process_one_work(self, worker: _Worker, item: _Item) -> None:
        """``process_one_work``: execute an item, or schedule it after the same work on another worker."""
        pool, queue, key, task = worker.pool, item.queue, item.key, worker.task
        try:
            collision = self._find_worker_executing_work(key)
            if collision is not None:
                collision.scheduled.append(item)
                return
            if not callable(key):
                worker.function = self._work_func(key)
                self._clear_pending(key)
        except PageFault as fault:  # the memory was freed without cancelling the work
            self._pending.pop(key, None)
            self._finish(item)
            await self._sched.fault(task, fault)
        worker.item = item
        if queue.flags & WqFlags.CPU_INTENSIVE:
            pool.count(worker, False)
        if pool.need_more_worker():
            pool.wake_up_worker()
        del self._pending[key]
        try:
            if callable(key):
                await key()
            else:
                await task.call(
                    worker.function,
                    key,
                    on_leak=lambda _before, after, _irqs: self._report_leak(worker, after),
                )
        finally:
            worker.item = None
            self._finish(item)
        pool.count(worker, True)
        task.state = TaskState.RUNNING
        await task.wait()  # cond_resched(): let other tasks run

    def _report_leak(self, worker: _Worker, count: int) -> None:
        task = worker.task
        self._printk(
            LOGLEVEL_ERR,
            f"BUG: workqueue leaked lock or atomic: {task.comm}/0x{count:08x}/{task.pid}\n"
            "     last function: "
            + self._computer.symbols.sprint_symbol_no_offset(worker.function),
        )

    # -- work items -------------------------------------------------------------------------------

    @service("queue_work_on")
    @service("queue_work_node", embedded=False)
    def queue_work_on(self, _cpu: S32, queue: Ptr, work: Ptr) -> bool:
        if self._test_and_set_pending(work):
            return False
        self._queue_work(self._at(queue), work)
        return True

    @service("queue_delayed_work_on")
    def queue_delayed_work_on(self, cpu: S32, queue: Ptr, dwork: Ptr, delay: U64) -> bool:
        if self._test_and_set_pending(self._work_in(dwork)):
            return False
        self._queue_delayed(cpu, queue, dwork, delay)
        return True

    @service("mod_delayed_work_on")
    def mod_delayed_work_on(self, cpu: S32, queue: Ptr, dwork: Ptr, delay: U64) -> bool:
        """Queue the work with a new delay. Returns whether it was pending."""
        was_pending = self._grab_pending(self._work_in(dwork), self._timer_in(dwork))
        if was_pending is None:
            return True
        self._queue_delayed(cpu, queue, dwork, delay)
        return was_pending

    def _queue_delayed(self, cpu: int, queue: int, dwork: int, delay: int) -> None:
        """``__queue_delayed_work``: start the timer of the work, or queue it if ``delay`` is 0."""
        if not delay:
            self._queue_work(self._at(queue), self._work_in(dwork))
            return
        view = self._space.view("struct delayed_work", dwork)
        view.wq = queue
        view.cpu = cpu
        clock = self._sched.clock
        self._timers.add(view.timer.address_, (clock.jiffies() + delay) % (1 << 64))

    @service("delayed_work_timer_fn")
    def delayed_work_timer_fn(self, timer: Ptr) -> None:
        dwork = self._space.container_of(timer, "struct delayed_work", "timer")
        self._queue_work(self._at(int(dwork.wq)), dwork.work.address_)

    def _work_in(self, dwork: int) -> int:
        return dwork + self._space.types.offsetof("struct delayed_work", "work")

    def _timer_in(self, dwork: int) -> int:
        return dwork + self._space.types.offsetof("struct delayed_work", "timer")

    def _grab_pending(self, work: int, timer: int | None) -> bool | None:
        """``try_to_grab_pending``: remove an item from its queue, and keep its PENDING bit set. Returns
        whether it was pending; None if another task is cancelling it."""
        if timer is not None and self._timers.delete(timer):
            return True
        if not self._test_and_set_pending(work):
            return False
        item = self._pending.pop(work, None)
        if item is None:
            return None
        for queue in (item.queue.pool.worklist, *(w.scheduled for w in self._worker_of.values())):
            if item in queue:
                queue.remove(item)
        self._finish(item)
        return True

    # -- flushing and cancelling ------------------------------------------------------------------

    async def _flush(self, work: int) -> bool:
        """``__flush_work``: wait until a work that is queued or executed is finished. Returns whether there
        was one. A checkpoint if so."""
        item = self._pending.get(work)
        if item is None:
            worker = self._find_worker_executing_work(work)
            item = worker.item if worker else None
        if item is None:
            return False
        await item.done.wait(self._sched.current)
        return True

    @service("flush_work")
    async def flush_work(self, work: Ptr) -> bool:
        return await self._flush(work)

    @service("flush_delayed_work")
    async def flush_delayed_work(self, dwork: Ptr) -> bool:
        if await self._timers.delete_sync(self._timer_in(dwork)):
            self.delayed_work_timer_fn(self._timer_in(dwork))
        return await self._flush(self._work_in(dwork))

    def _cancel(self, work: int, timer: int | None) -> bool:
        """``__cancel_work``: cancel a work. Returns whether it was pending."""
        was_pending = self._grab_pending(work, timer)
        if was_pending is None:
            return False
        self._clear_pending(work)
        return was_pending

    async def _cancel_sync(self, work: int, timer: int | None) -> bool:
        """``__cancel_work_timer``: cancel a work, and wait until its function has returned. Returns whether
        it was pending. Meanwhile the PENDING bit is set, so that no task, and not the function itself, can
        queue the work again."""
        while (was_pending := self._grab_pending(work, timer)) is None:
            other = self._canceling.get(work)
            if other is None:
                return False  # a draining queue has dropped it
            await other.wait(self._sched.current)
        self._canceling[work] = done = Completion()
        try:
            await self._flush(work)
        finally:
            self._clear_pending(work)
            del self._canceling[work]
            done.complete_all()
        return was_pending

    @service("cancel_work")
    def cancel_work(self, work: Ptr) -> bool:
        return self._cancel(work, None)

    @service("cancel_work_sync")
    async def cancel_work_sync(self, work: Ptr) -> bool:
        return await self._cancel_sync(work, None)

    @service("cancel_delayed_work")
    def cancel_delayed_work(self, dwork: Ptr) -> bool:
        return self._cancel(self._work_in(dwork), self._timer_in(dwork))

    @service("cancel_delayed_work_sync")
    async def cancel_delayed_work_sync(self, dwork: Ptr) -> bool:
        return await self._cancel_sync(self._work_in(dwork), self._timer_in(dwork))

    @service("work_busy")
    def work_busy(self, work: Ptr) -> int:
        pending = _PENDING_BUSY if self._work_data(work) & _PENDING else 0
        return pending | (_RUNNING_BUSY if self._find_worker_executing_work(work) else 0)

    @service("current_work", embedded=False)
    def current_work(self) -> int:
        """Return the address of the work that the current task executes, or 0."""
        worker = self._worker_of.get(self._sched.current)
        key = worker.item.key if worker and worker.item else 0
        return 0 if callable(key) else key

    # -- struct workqueue_struct ------------------------------------------------------------------

    def _new(self, name: str, flags: int, max_active: int) -> _Workqueue:
        if flags & WqFlags.UNBOUND:
            pool = self._unbound
        else:
            pool = self._highpri if flags & WqFlags.HIGHPRI else self._normal
        return _Workqueue(name, flags, _clamp_max_active(max_active), pool)

    def _alloc(self, name: str) -> int:
        """Allocate guest memory whose address identifies a workqueue. It holds the name only, because guest
        code does not read the struct."""
        address = self._slab.alloc(_WQ_NAME_LEN, "workqueue_struct")
        label = name.encode("utf-8", "surrogateescape")[: _WQ_NAME_LEN - 1]
        self._computer.memory.write(address, label)
        return address

    @service("alloc_workqueue")
    async def alloc_workqueue(self, fmt: Ptr, flags: U32, max_active: S32) -> int:
        """Create a workqueue; ``fmt`` and the variadic arguments are its name. Returns 0 if there is no
        memory."""
        current = self._sched.current
        name = text(
            await vscnprintf_here(self._computer, current, fmt, fixed=3, limit=_WQ_NAME_LEN)
        )
        try:
            check_room(self._queues)
            address = self._alloc(name)
        except MemoryError:
            return 0
        self._queues[address] = self._new(name, flags, max_active)
        return address

    @service("workqueue_set_max_active", embedded=False)
    def workqueue_set_max_active(self, address: Ptr, max_active: S32) -> None:
        queue = self._at(address)
        queue.max_active = _clamp_max_active(max_active)
        while queue.inactive and queue.nr_active < queue.max_active:
            queue.nr_active += 1
            self._insert_work(queue.inactive.popleft())

    @service("__flush_workqueue")
    @service("flush_workqueue", embedded=False)
    async def flush_workqueue(self, address: Ptr) -> None:
        """Wait until all items that are queued or executed now are finished."""
        for item in list(self._at(address).items):
            await item.done.wait(self._sched.current)

    @service("drain_workqueue")
    async def drain_workqueue(self, address: Ptr) -> None:
        """Wait until the queue is empty. Meanwhile only its own work items can queue more work."""
        queue = self._at(address)
        queue.draining = True
        try:
            while queue.items:
                await self.flush_workqueue(address)
        finally:
            queue.draining = False

    @service("destroy_workqueue")
    async def destroy_workqueue(self, address: Ptr) -> None:
        await self.drain_workqueue(address)
        del self._queues[address]
        self._slab.free(address)


def _clamp_max_active(max_active: int) -> int:
    """``wq_clamp_max_active``: return the number of items of a queue that may be executed at a time."""
    return min(max(1, max_active or _WQ_DFL_ACTIVE), _WQ_MAX_ACTIVE)
