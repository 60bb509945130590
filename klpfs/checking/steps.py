# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps of a check: each runs as a process would, and is judged by its errno and by the log."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from klpfs.checking import diagnosis
from klpfs.checking.report import Report, Verdict
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.task import TaskExit

_TICK = 0.1
"""Guest seconds by which time advances while a step runs."""
_REAL_TIMEOUT = 20.0
"""Seconds of real time after which a step is given up, however little guest time has passed."""
_PID = 1
_FAULTS = (
    "BUG:", "kernel BUG", "WARNING: CPU", "general protection fault", "divide error", "invalid opcode",
)  # fmt: skip
"""Prefixes of the log lines that begin the report of a fault."""
_TAINTS = ("taints kernel", "tainting kernel", "lock debugging")


class Stopped(Exception):
    """The check cannot continue. The report has a finding that says why."""


class Steps:
    """A runner of the steps of a check on one kernel. It adds its findings to ``report``.

    ``timeout``: the guest seconds that a step or a transition may take.
    """

    def __init__(self, kernel: Kernel, clock: VirtualClock, report: Report, timeout: float) -> None:
        self._kernel = kernel
        self._clock = clock
        self._report = report
        self._timeout = timeout
        self._seq = 0  # the first log record that was not searched for faults yet

    def stop(self, subject: str, verdict: Verdict, detail: str) -> NoReturn:
        """Add a finding and raise `Stopped`."""
        self._report.add(subject, verdict, detail)
        raise Stopped

    async def run(
        self, subject: str, step: Callable[[], Awaitable[object]], detail: str = ""
    ) -> None:
        """Run ``step`` as a task while guest time advances, and add a finding about it.

        ``detail`` is the text of the finding if the step succeeds. Raise `Stopped` if it fails, if its
        task dies, or if it does not finish in time.
        """
        failure: BaseException | None = None
        finished, tasks = False, ""
        self._seq = self._kernel.printk.next_seq

        async def process() -> None:
            nonlocal failure, finished
            try:
                async with self._kernel.fork.user_task(_PID, "klpfs"):
                    await step()
            except (OSError, TaskExit) as error:
                failure = error
            finished = True

        with trio.move_on_after(_REAL_TIMEOUT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process)
                end = self._clock.now() + int(self._timeout * 1e9)
                try:
                    while not finished and self._clock.now() < end:
                        await self._clock.advance(_TICK)
                finally:
                    tasks = self._tasks_in_modules()
                nursery.cancel_scope.cancel()
        if not finished:
            self.stop(subject, Verdict.BAD, f"did not finish; {tasks}")
        if isinstance(failure, TaskExit):
            if self.add_fault(subject):
                raise Stopped
            self.stop(subject, Verdict.BAD, "the task exited before it was done")
        if isinstance(failure, OSError):
            self._stop_with_errno(subject, failure)
        if not self.add_fault(subject):
            self._report.add(subject, Verdict.GOOD, detail or "done")

    def _stop_with_errno(self, subject: str, failure: OSError) -> NoReturn:
        warnings = [
            record.text
            for record in self._kernel.printk.records(self._seq)
            if record.level <= LOGLEVEL_WARNING
            and not any(taint in record.text for taint in _TAINTS)
        ]
        for reason in diagnosis.reasons(self._kernel, warnings):
            self._report.add(reason.subject, Verdict.BAD, reason.detail)
        number = failure.errno or errno.EIO
        name = errno.errorcode.get(number, str(number))
        why = "; ".join(warnings) or str(failure)
        self.stop(subject, Verdict.BAD, f"{os.strerror(number)} ({name}): {why}")

    async def wait_for_transition(self, action: str) -> None:
        """Advance guest time until no transition runs. Raise `Stopped` if it takes too long."""
        kernel, start = self._kernel, self._clock.now()
        with trio.move_on_after(_REAL_TIMEOUT):
            while kernel.livepatch.universes.patch is not None:
                if self._clock.now() - start > self._timeout * 1e9:
                    break
                await self._clock.advance(_TICK)
        subject = f"{action}: transition"
        if kernel.livepatch.universes.patch is not None:
            detail = f"not finished after {self._timeout:g} s; {self._tasks_in_modules()}"
            self.stop(subject, Verdict.BAD, detail)
        await self._clock.advance(_TICK)
        seconds = (self._clock.now() - start) / 1e9
        if not self.add_fault(subject):
            self._report.add(subject, Verdict.GOOD, f"finished in {seconds:.1f} s")

    def add_fault(self, subject: str) -> bool:
        """Add a finding if an Oops or a WARN was logged since the last call. Return whether one was.

        The verdict is UNKNOWN if the cause may be that the kernel was not
        booted, or if it was only a warning.
        """
        lines = [record.text for record in self._kernel.printk.records(self._seq)]
        self._seq = self._kernel.printk.next_seq
        fault = next((line for line in lines if line.startswith(_FAULTS)), None)
        if fault is None:
            return False
        rip = next((line for line in lines if line.startswith("RIP: ")), "RIP: 0010:?")
        detail = f"{fault}, in {rip.removeprefix('RIP: 0010:')}"
        doubt = next((line for line in lines if line.startswith("klpfs: ")), "")
        if doubt:
            detail += f"; {doubt.removeprefix('klpfs: ')}"
        verdict = Verdict.UNKNOWN if doubt or fault.startswith("WARNING") else Verdict.BAD
        self._report.add(subject, verdict, detail)
        return True

    def _tasks_in_modules(self) -> str:
        """Return which tasks have code of a module on their stack, and where."""
        kernel = self._kernel
        stacks = []
        for task in kernel.sched:
            frames = [
                kernel.symbols.sprint_backtrace(ip)
                for ip in kernel.stack.walk(task)
                if not kernel.sched.is_return(ip)
            ]
            if any("[" in frame for frame in frames):
                stacks.append(f"{task.comm} is in {' < '.join(frames[:4])}")
        return "; ".join(stacks) or "no task is in a module"
