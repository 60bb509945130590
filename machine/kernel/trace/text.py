# SPDX-License-Identifier: GPL-2.0-or-later
"""Text poking: changes of kernel text while tasks run it. arch/x86/kernel/alternative.c.

The first byte of a site becomes an int3, then the other bytes are written, then the first byte. Between the
steps other tasks run. For a task that hits the int3, the new instruction is emulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from klpfs.machine.computer import Computer
from klpfs.machine.cpu import Stop
from klpfs.machine.instructions import CALL, CALL_SIZE, INT3, target_of
from klpfs.machine.kernel.sched.core import Scheduler, Task
from klpfs.machine.memory import PAGE_SIZE


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each contiguous range of ``pages``, a sorted sequence of page addresses."""
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
    """Reads and writes kernel text. All changes of kernel text go through this class."""

    def __init__(self, computer: Computer, sched: Scheduler) -> None:
        self._computer = computer
        self._sched = sched
        self._poking: dict[int, bytes] = {}

    def read(self, site: int, size: int = CALL_SIZE) -> bytes:
        """Return ``size`` bytes at ``site``."""
        return self._computer.memory.read(site, size)

    def poke_early(self, site: int, code: bytes) -> None:
        """``text_poke_early``: write text that no task runs now."""
        self._computer.memory.write(site, code)
        self._computer.cpu.code_changed(site, len(code))

    def poke_all_early(self, changes: Sequence[tuple[int, bytes]]) -> None:
        """Like `poke_early` for many sites; fast for tens of thousands of them."""
        write, pages = self._computer.memory.write, set()
        for site, code in changes:
            write(site, code)
            pages.add(site & -PAGE_SIZE)
            pages.add(site + len(code) - 1 & -PAGE_SIZE)
        for first, end in _runs(sorted(pages)):
            self._computer.cpu.code_changed(first, end - first)

    async def poke_bp(self, changes: Sequence[tuple[int, bytes]]) -> None:
        """``text_poke_bp_batch``: replace 5-byte instructions. A task sees either the old or the new
        instruction at a site. Three checkpoints, for any number of changes."""
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
        """``poke_int3_handler``: emulate the new instruction for a task that has hit the int3 of `poke_bp`.
        Returns False if the int3 is another one."""
        cpu = self._computer.cpu
        site = cpu["rip"] - 1
        code = self._poking.get(site)
        if code is None:
            # The int3 may be gone by now: then run the instruction that has replaced it.
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
