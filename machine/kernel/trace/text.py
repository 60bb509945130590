# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing kernel text under running tasks, arch/x86/kernel/alternative.c.

A site is first made an int3, then its tail is written, then its first byte. Between the steps the other
tasks run; one that hits the int3 gets the effect of the new instruction by emulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop
from klpfs.machine.instructions import CALL, CALL_SIZE, INT3, target_of
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.memory import PAGE_SIZE


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Start and end of what lies together of ``pages``, which are in order."""
    start = end = 0
    for page in pages:
        if page != end:
            if end:
                yield start, end
            start = page
        end = page + PAGE_SIZE
    if end:
        yield start, end


class Text:
    """The one way in which kernel text is changed."""

    def __init__(self, computer: Computer, sched: Scheduler) -> None:
        self._computer = computer
        self._sched = sched
        self._poking: dict[int, bytes] = {}

    def read(self, site: int, size: int = CALL_SIZE) -> bytes:
        """The bytes that stand at ``site``."""
        return self._computer.memory.read(site, size)

    def poke_early(self, site: int, code: bytes) -> None:
        """Write text that no task can be running (``text_poke_early``)."""
        self._computer.memory.write(site, code)
        self._computer.cpu.code_changed(site, len(code))

    def poke_all_early(self, changes: Sequence[tuple[int, bytes]]) -> None:
        """`poke_early` of many places, of tens of thousands in a blink."""
        write, pages = self._computer.memory.write, set()
        for site, code in changes:
            write(site, code)
            pages.add(site & -PAGE_SIZE)
            pages.add(site + len(code) - 1 & -PAGE_SIZE)
        for first, end in _runs(sorted(pages)):
            self._computer.cpu.code_changed(first, end - first)

    async def poke_bp(self, changes: Sequence[tuple[int, bytes]]) -> None:
        """``text_poke_bp_batch``: put 5-byte instructions in place of others, each at once for every
        task. A checkpoint, three times, however many the changes are."""
        while self._poking:  # text_mutex
            await self._sched.synchronize_rcu()
        self._poking = dict(changes)
        try:
            for site, _ in changes:
                self.poke_early(site, bytes([INT3]))
            await self._sched.synchronize_rcu()
            for site, code in changes:
                self.poke_early(site + 1, code[1:])
            await self._sched.synchronize_rcu()
            for site, code in changes:
                self.poke_early(site, code[:1])
            await self._sched.synchronize_rcu()
        finally:
            self._poking = {}

    def handle_int3(self, task: Task, _stop: Stop) -> bool:
        """``poke_int3_handler``: let a task that hit the int3 of a change in progress do what the new
        instruction does. False if the int3 is not ours."""
        cpu = self._computer.cpu
        site = cpu["rip"] - 1
        code = self._poking.get(site)
        if code is None:
            # The change may have ended since the processor met the int3.
            if self.read(site, 1)[0] == INT3:
                return False
            cpu["rip"] = site
            return True
        target = target_of(site, code)
        if target is not None and code[0] == CALL:
            cpu["rsp"] -= 8
            self._computer.space.write_u64(cpu["rsp"], site + CALL_SIZE)
        cpu["rip"] = site + CALL_SIZE if target is None else target
        return True
