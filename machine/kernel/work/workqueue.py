# SPDX-License-Identifier: GPL-2.0-or-later
"""Workqueues: work items that kernel threads execute later. kernel/workqueue.c.

A work item is a struct work_struct in guest memory, or an async function in Python. The items of a workqueue
are executed by the workers of a pool, `klpfs.machine.kernel.work.worker_pool`.
"""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.clock import HZ
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.wait import Completion
from klpfs.machine.kernel.service import S32, U32, U64, Ptr, service
from klpfs.machine.kernel.vsprintf import text, vscnprintf_here
from klpfs.machine.kernel.work.timer import Timers
from klpfs.machine.kernel.work.worker_pool import (
    WORK_STRUCT_PENDING,
    Function,
    Key,
    Workers,
    WorkItem,
    Workqueue,
    WqFlags,
)
from klpfs.machine.limits import check_room
from klpfs.machine.memory import PageFault

_WQ_NAME_LEN = 24
_WQ_MAX_ACTIVE, _WQ_DFL_ACTIVE = 512, 256
_PENDING_BUSY, _RUNNING_BUSY = 1, 2

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


class Workqueues:
    """The workqueues of one kernel."""

    def __init__(self, base: Base, timers: Timers) -> None:
        self._computer = computer = base.computer
        self._space = computer.space
        self._sched = base.sched
        self._slab = base.slab
        self._timers = timers
        self._printk = base.printk
        self._workers = Workers(base)
        self._queues: dict[int, Workqueue] = {}
        self._delayed: set[Function] = set()
        self._canceling: dict[int, Completion] = {}
        self._system: Workqueue
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
        self._workers.start()

    # -- for services -----------------------------------------------------------------------------

    def queue(self, function: Function) -> None:
        """``schedule_work``: run an async function on a worker. Does nothing if it is queued already."""
        if function not in self._workers.pending:
            self._queue_work(self._system, function)

    def queue_delayed(self, function: Function, seconds: float) -> None:
        """``schedule_delayed_work``: queue an async function after ``seconds`` of guest time, rounded to
        ticks. Does nothing if it is queued or delayed already."""
        if function in self._delayed or function in self._workers.pending:
            return

        def expired() -> None:
            self._delayed.discard(function)
            self.queue(function)

        self._delayed.add(function)
        self._timers.call_later(round(seconds * HZ), expired)

    # -- queueing ---------------------------------------------------------------------------------

    def _at(self, address: int) -> Workqueue:
        """Return the workqueue at ``address``. Raises PageFault if there is none."""
        queue = self._queues.get(address)
        if queue is None:
            raise PageFault(address)
        return queue

    def _work_data(self, work: int) -> int:
        return int(self._space.view("struct work_struct", work).data.counter)

    def _test_and_set_pending(self, work: int) -> bool:
        data = self._space.view("struct work_struct", work).data
        was = bool(data.counter & WORK_STRUCT_PENDING)
        data.counter |= WORK_STRUCT_PENDING
        return was

    def _queue_work(self, queue: Workqueue, key: Key) -> None:
        """``__queue_work``: queue an item. Logs a warning and drops the item if the queue is draining."""
        if queue.draining and not self._is_chained_work(queue):
            self._printk(
                LOGLEVEL_WARNING, f"workqueue: work queued on {queue.name}, which is drained"
            )
            return
        check_room(self._workers.pending)
        item = WorkItem(key, queue)
        self._workers.pending[key] = item
        queue.items[item] = None
        if queue.nr_active < queue.max_active:
            queue.nr_active += 1
            self._workers.insert_work(item)
        else:
            queue.inactive.append(item)

    def _is_chained_work(self, queue: Workqueue) -> bool:
        """``is_chained_work``: return whether the current task executes an item of ``queue``."""
        worker = self._workers.current_wq_worker()
        return bool(worker and worker.item and worker.item.queue is queue)

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
        item = self._workers.pending.pop(work, None)
        if item is None:
            return None
        self._workers.dequeue(item)
        self._workers.finish(item)
        return True

    # -- flushing and cancelling ------------------------------------------------------------------

    async def _flush(self, work: int) -> bool:
        """``__flush_work``: wait until a work that is queued or executed is finished. Returns whether there
        was one. A checkpoint if so."""
        item = self._workers.pending.get(work)
        if item is None:
            worker = self._workers.find_worker_executing_work(work)
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
        self._workers.clear_pending(work)
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
            self._workers.clear_pending(work)
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
        pending = _PENDING_BUSY if self._work_data(work) & WORK_STRUCT_PENDING else 0
        return pending | (_RUNNING_BUSY if self._workers.find_worker_executing_work(work) else 0)

    @service("current_work", embedded=False)
    def current_work(self) -> int:
        """Return the address of the work that the current task executes, or 0."""
        worker = self._workers.current_wq_worker()
        key = worker.item.key if worker and worker.item else 0
        return 0 if callable(key) else key

    # -- struct workqueue_struct ------------------------------------------------------------------

    def _new(self, name: str, flags: int, max_active: int) -> Workqueue:
        if flags & WqFlags.UNBOUND:
            pool = self._workers.unbound
        else:
            pool = self._workers.highpri if flags & WqFlags.HIGHPRI else self._workers.normal
        return Workqueue(name, flags, _clamp_max_active(max_active), pool)

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
            self._workers.insert_work(queue.inactive.popleft())

    @service("__flush_workqueue")
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
