# SPDX-License-Identifier: GPL-2.0-or-later
"""Watchdogs for tasks that lock up the CPU, and for hung tasks. kernel/watchdog.c, kernel/watchdog_hld.c,
kernel/hung_task.c.

A task that loops with preemption or interrupts off blocks the only CPU. A lockup causes a panic by default,
as with CONFIG_BOOTPARAM_SOFTLOCKUP_PANIC and CONFIG_BOOTPARAM_HARDLOCKUP_PANIC. A panic ends only the task
that caused it; other tasks go on.
"""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.clock import HZ
from klpfs.machine.kernel.oops.taint import Taint
from klpfs.machine.kernel.printk.printk import LOGLEVEL_EMERG, LOGLEVEL_ERR
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.kernel.sched.task import TaskState
from klpfs.machine.kernel.work.timer import Timers

_NSEC_PER_SEC = 1_000_000_000
_TASK_WAKEKILL, _TASK_NOLOAD = 0x100, 0x400


class Sysctls:
    """The watchdogs' values in /proc/sys/kernel. Times are in seconds; 0 disables a watchdog."""

    def __init__(self) -> None:
        self.watchdog_thresh = 10
        self.softlockup_panic = 1
        self.hardlockup_panic = 1
        self.hung_task_timeout_secs = 120
        self.hung_task_warnings = 10


LIMITS = {
    "watchdog_thresh": (0, 60),
    "softlockup_panic": (0, 1),
    "hardlockup_panic": (0, 1),
    "hung_task_timeout_secs": (0, (1 << 31) // HZ),
    "hung_task_warnings": (-1, (1 << 31) - 1),
}
"""Smallest and largest value of each sysctl."""


class Watchdog:
    """The watchdogs of one kernel."""

    def __init__(self, base: Base, timers: Timers) -> None:
        self._sched = base.sched
        self._timers = timers
        self._dumpstack = base.dumpstack
        self._traps = base.traps
        self._printk = base.printk
        self._tainted = base.tainted
        self._version = f"{base.computer.image.release} #1"
        self.sysctls = Sysctls()
        self._asleep: dict[int, tuple[int, int]] = {}
        self._period = 0
        base.sched.on_atomic.append(self._check_lockup)

    def start(self) -> None:
        """``hung_task_init``: start the checks for hung tasks, or restart them with a new timeout."""
        self._period += 1
        self._schedule_check(self._period)

    def set(self, name: str, value: int) -> None:
        """Set a sysctl. Raises ValueError if the value is out of range."""
        least, greatest = LIMITS[name]
        if not least <= value <= greatest:
            raise ValueError(f"{name} is between {least} and {greatest}")
        setattr(self.sysctls, name, value)
        if name == "hung_task_timeout_secs":
            self.start()

    # -- lockups ----------------------------------------------------------------------------------

    def _check_lockup(self, task: Task) -> None:
        """``watchdog_timer_fn`` and, with interrupts off, ``watchdog_overflow_callback``: report a task that
        has had preemption or interrupts off for too long. Raises TaskExit if a lockup causes a panic."""
        thresh = self.sysctls.watchdog_thresh
        assert task.atomic_since is not None
        seconds = (self._sched.clock.now() - task.atomic_since) // _NSEC_PER_SEC
        hard = not self._sched.interrupts_on
        if not thresh or seconds < (thresh if hard else 2 * thresh):
            return
        if hard:
            line = "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0"
        else:
            who = f"[{task.comm}:{task.pid}]"
            line = f"watchdog: BUG: soft lockup - CPU#0 stuck for {seconds}s! {who}"
        self._printk(LOGLEVEL_EMERG, line)
        self._dumpstack.show_running(task)
        task.atomic_since = None  # a second report comes after the same time
        if hard:
            if self.sysctls.hardlockup_panic:
                self._traps.panic_with("Hard LOCKUP")
            return
        self._tainted.add(Taint.SOFTLOCKUP)
        if self.sysctls.softlockup_panic:
            self._traps.panic_with("softlockup: hung tasks")

    # -- hung tasks -------------------------------------------------------------------------------

    def _schedule_check(self, period: int) -> None:
        """Start the timer for the next check, unless `start` has begun another period."""
        if period == self._period and self.sysctls.hung_task_timeout_secs:
            ticks = self.sysctls.hung_task_timeout_secs * HZ
            self._timers.call_later(ticks, lambda: self._check_hung_tasks(period))

    def _check_hung_tasks(self, period: int) -> None:
        """``check_hung_uninterruptible_tasks``, with the timeout as its period."""
        if period != self._period:
            return
        if not self._tainted.mask >> Taint.DIE & 1:
            before, self._asleep = self._asleep, {}
            for task in self._sched:
                if _is_uninterruptible(task):
                    self._check_hung_task(task, before.get(task.address))
        self._schedule_check(period)

    def _check_hung_task(self, task: Task, before: tuple[int, int] | None) -> None:
        """``check_hung_task``. ``before``: the ticks when the last check saw the task asleep for the first
        time, and its number of context switches then."""
        now = self._sched.clock.ticks()
        since = before[0] if before and before[1] == task.switches else now
        self._asleep[task.address] = since, task.switches
        seconds = (now - since) // HZ
        if seconds < self.sysctls.hung_task_timeout_secs or not self.sysctls.hung_task_warnings:
            return
        if self.sysctls.hung_task_warnings > 0:
            self.sysctls.hung_task_warnings -= 1
        self._printk(
            LOGLEVEL_ERR,
            f"INFO: task {task.comm}:{task.pid} blocked for more than {seconds} seconds.",
        )
        self._printk(LOGLEVEL_ERR, f"      {self._tainted} {self._version}")
        self._printk(
            LOGLEVEL_ERR,
            '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
        )
        self._dumpstack.show_task(task)


def _is_uninterruptible(task: Task) -> bool:
    state = int(task.state)
    return bool(state & TaskState.UNINTERRUPTIBLE) and not state & (_TASK_WAKEKILL | _TASK_NOLOAD)
