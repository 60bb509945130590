# SPDX-License-Identifier: GPL-2.0-or-later
"""Worker pools: the kernel threads that execute work items. kernel/workqueue.c.

In a bound pool one worker runs at a time; when it sleeps, another one starts. In the unbound pool each item
gets a worker at once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Awaitable, Callable

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import PF_WQ_WORKER, TaskExit, TaskState
from klpfs.machine.kernel.sched.wait import IDLE, Completion
from klpfs.machine.memory import PageFault

IDLE_WORKER_SECONDS = 300.0
"""Time after which an idle worker that is not needed exits (IDLE_WORKER_TIMEOUT)."""
_SPARE_WORKERS = 2
WORK_STRUCT_PENDING = 1
"""Bit of ``work_struct.data``, WORK_STRUCT_PENDING_BIT."""


class WqFlags(enum.IntFlag):
    """Flags of alloc_workqueue(), include/linux/workqueue.h."""

    UNBOUND = 1 << 1
    HIGHPRI = 1 << 4
    CPU_INTENSIVE = 1 << 5


Function = Callable[[], Awaitable[None]]
Key = int | Function
"""Identity of a work item: the address of the work_struct, or the Python function."""


class WorkItem:
    """A work item that has been queued once. ``done`` is set when it was executed or cancelled."""

    def __init__(self, key: Key, queue: Workqueue) -> None:
        self.key = key
        self.queue = queue
        self.done = Completion()


class Workqueue:
    """``struct workqueue_struct``, with its one ``pool_workqueue``."""

    def __init__(self, name: str, flags: int, max_active: int, pool: WorkerPool) -> None:
        self.name = name
        self.flags = flags
        self.max_active = max_active
        self.pool = pool
        self.nr_active = 0
        self.inactive: deque[WorkItem] = deque()
        self.items: dict[WorkItem, None] = {}
        """All items that are queued or executed, in the order of queueing."""
        self.draining = False


class Worker:
    """``struct worker``"""

    def __init__(self, pool: WorkerPool, number: int) -> None:
        self.pool = pool
        self.number = number
        self.task: Task
        self.item: WorkItem | None = None
        self.function = 0
        self.scheduled: deque[WorkItem] = deque()
        """Items with the same work as `item`, which this worker executes next."""
        self.counted = False
        """True if ``pool.nr_running`` includes this worker."""
        self.asleep = False
        self.idle = False


class WorkerPool:
    """``struct worker_pool``"""

    def __init__(self, name: str, *, bound: bool) -> None:
        self.name = name
        self.bound = bound
        self.worklist: deque[WorkItem] = deque()
        self.workers: set[Worker] = set()
        self.idle: list[Worker] = []
        self.nr_running = 0

    def need_more_worker(self) -> bool:
        """Return whether there is work and no worker runs."""
        return bool(self.worklist) and not self.nr_running

    def keep_working(self) -> bool:
        """Return whether there is work and at most one worker runs: the one that asks."""
        return bool(self.worklist) and self.nr_running <= 1

    def wake_up_worker(self) -> None:
        """Wake the worker that became idle last."""
        if self.idle:
            self.idle[-1].task.wake()

    def count(self, worker: Worker, running: bool) -> None:
        """Include ``worker`` in `nr_running`, or not. A pool that is not bound counts no workers."""
        if self.bound and worker.counted != running:
            worker.counted = running
            self.nr_running += 1 if running else -1


class Workers:
    """The worker pools of one kernel, and their threads."""

    def __init__(self, base: Base) -> None:
        self._space = base.computer.space
        self._symbols = base.computer.symbols
        self._sched = base.sched
        self._fork = base.fork
        self._printk = base.printk
        self.normal = WorkerPool("0:{}", bound=True)
        self.highpri = WorkerPool("0:{}H", bound=True)
        self.unbound = WorkerPool("u2:{}", bound=False)
        self.pending: dict[Key, WorkItem] = {}
        """The items that are queued and not executed yet."""
        self._worker_of: dict[Task, Worker] = {}

    def start(self) -> None:
        """Create the first worker of each pool."""
        for pool in (self.normal, self.highpri, self.unbound):
            self._create_worker(pool)

    # -- work items -------------------------------------------------------------------------------

    def insert_work(self, item: WorkItem) -> None:
        """``insert_work``: put an item on the worklist of its pool, and wake a worker."""
        pool = item.queue.pool
        pool.worklist.append(item)
        if pool.need_more_worker():
            pool.wake_up_worker()

    def finish(self, item: WorkItem) -> None:
        """``pwq_dec_nr_in_flight``: remove an item that was executed or cancelled from its queue."""
        queue = item.queue
        del queue.items[item]
        if item in queue.inactive:
            queue.inactive.remove(item)
        else:
            queue.nr_active -= 1
            if queue.inactive and queue.nr_active < queue.max_active:
                queue.nr_active += 1
                self.insert_work(queue.inactive.popleft())
        item.done.complete_all()

    def dequeue(self, item: WorkItem) -> None:
        """Remove an item from the worklist of its pool, or from the items scheduled for a worker."""
        for queue in (item.queue.pool.worklist, *(w.scheduled for w in self._worker_of.values())):
            if item in queue:
                queue.remove(item)

    def clear_pending(self, work: int) -> None:
        """Clear the PENDING bit of a work: it may be queued again."""
        self._space.view("struct work_struct", work).data.counter &= ~WORK_STRUCT_PENDING

    # -- workers ----------------------------------------------------------------------------------

    def _create_worker(self, pool: WorkerPool) -> None:
        """``create_worker``: start a worker with the first free number."""
        taken = {worker.number for worker in pool.workers}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        worker = Worker(pool, number)
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

    def _enter_idle(self, worker: Worker) -> None:
        worker.idle = True
        worker.pool.idle.append(worker)

    def _leave_idle(self, worker: Worker) -> None:
        if worker.idle:
            worker.idle = False
            worker.pool.idle.remove(worker)

    def _worker_sleeping(self, worker: Worker) -> None:
        """``wq_worker_sleeping``: let another worker run while this one sleeps."""
        if worker.counted:
            worker.asleep = True
            worker.pool.count(worker, False)
            if worker.pool.need_more_worker():
                worker.pool.wake_up_worker()

    def _worker_running(self, worker: Worker) -> None:
        """``wq_worker_running``: count the worker again."""
        if worker.asleep:
            worker.asleep = False
            worker.pool.count(worker, True)

    async def _worker_thread(self, worker: Worker) -> int:
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

    async def _wait_for_work(self, worker: Worker) -> bool:
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

    def _detach_worker(self, worker: Worker) -> None:
        """``worker_detach_from_pool``: remove a worker, and put its scheduled items back on the worklist."""
        pool = worker.pool
        self._leave_idle(worker)
        worker.asleep = False
        pool.count(worker, False)
        pool.workers.discard(worker)
        pool.worklist.extendleft(reversed(worker.scheduled))
        worker.scheduled.clear()

    def _replace_worker(self, worker: Worker) -> None:
        """Replace a worker that was killed by the work that it executed, so that other work goes on."""
        pool = worker.pool
        self._detach_worker(worker)
        if not pool.idle:
            self._create_worker(pool)
        elif pool.need_more_worker():
            pool.wake_up_worker()

    def current_wq_worker(self) -> Worker | None:
        """``current_wq_worker``: return the worker that the current task is, or None."""
        return self._worker_of.get(self._sched.current)

    def find_worker_executing_work(self, key: Key) -> Worker | None:
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

    async def _process_one_work(self, worker: Worker, item: WorkItem) -> None:
        """``process_one_work``: execute an item, or schedule it after the same work on another worker."""
        pool, queue, key, task = worker.pool, item.queue, item.key, worker.task
        try:
            collision = self.find_worker_executing_work(key)
            if collision is not None:
                collision.scheduled.append(item)
                return
            if not callable(key):
                worker.function = self._work_func(key)
                self.clear_pending(key)
        except PageFault as fault:  # the memory was freed without cancelling the work
            self.pending.pop(key, None)
            self.finish(item)
            await self._sched.fault(task, fault)
        worker.item = item
        if queue.flags & WqFlags.CPU_INTENSIVE:
            pool.count(worker, False)
        if pool.need_more_worker():
            pool.wake_up_worker()
        del self.pending[key]
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
            self.finish(item)
        pool.count(worker, True)
        task.state = TaskState.RUNNING
        await task.wait()  # cond_resched(): let other tasks run

    def _report_leak(self, worker: Worker, count: int) -> None:
        task = worker.task
        self._printk(
            LOGLEVEL_ERR,
            f"BUG: workqueue leaked lock or atomic: {task.comm}/0x{count:08x}/{task.pid}\n"
            f"     last function: {self._symbols.sprint_symbol_no_offset(worker.function)}",
        )
