# SPDX-License-Identifier: GPL-2.0-or-later
"""First-fit allocation of ranges of numbers: physical pages, parts of the address space."""

from __future__ import annotations

from bisect import bisect_left


class Extents:
    """Ranges out of ``[start, end)``, handed out lowest first and merged again when they come back."""

    def __init__(self, start: int, end: int) -> None:
        self._free: list[tuple[int, int]] = [(start, end)]

    @property
    def available(self) -> int:
        """How much is free, in the unit of the range."""
        return sum(end - start for start, end in self._free)

    def alloc(self, size: int, align: int = 1) -> int:
        """Take ``size`` units at a multiple of ``align``. Raises MemoryError when nothing fits."""
        for i, (start, end) in enumerate(self._free):
            at = -(-start // align) * align
            if at + size <= end:
                rest = [(start, at), (at + size, end)]
                self._free[i : i + 1] = [(a, b) for a, b in rest if a < b]
                return at
        raise MemoryError(f"no {size:#x} units left")

    def reserve(self, start: int, size: int) -> None:
        """Take just ``[start, start + size)``. Raises MemoryError when part of it is taken."""
        for i, (first, last) in enumerate(self._free):
            if first <= start and start + size <= last:
                rest = [(first, start), (start + size, last)]
                self._free[i : i + 1] = [(a, b) for a, b in rest if a < b]
                return
        raise MemoryError(f"{start:#x} is taken")

    def free(self, start: int, size: int) -> None:
        """Give back a range that ``alloc`` handed out."""
        end = start + size
        i = bisect_left(self._free, (start, end))
        if i < len(self._free) and self._free[i][0] == end:
            end = self._free.pop(i)[1]
        if i and self._free[i - 1][1] == start:
            i -= 1
            start = self._free.pop(i)[0]
        self._free.insert(i, (start, end))
