# SPDX-License-Identifier: GPL-2.0-or-later
"""A first-fit allocator of ranges: of physical memory, of parts of the address space."""

from __future__ import annotations

from bisect import bisect_left


class Extents:
    """The free ranges in ``[start, end)``. Freed ranges are merged with their neighbours."""

    def __init__(self, start: int, end: int) -> None:
        self._free: list[tuple[int, int]] = [(start, end)]

    @property
    def available(self) -> int:
        """The sum of the sizes of the free ranges."""
        return sum(end - start for start, end in self._free)

    def alloc(self, size: int, align: int = 1) -> int:
        """Take the lowest free range of ``size`` at a multiple of ``align``; return its start.

        Raise MemoryError if there is none.
        """
        for i, (start, end) in enumerate(self._free):
            at = -(-start // align) * align
            if at + size <= end:
                rest = [(start, at), (at + size, end)]
                self._free[i : i + 1] = [(a, b) for a, b in rest if a < b]
                return at
        raise MemoryError(f"no free range of size {size:#x}")

    def reserve(self, start: int, size: int) -> None:
        """Take the range ``[start, start + size)``. Raise MemoryError unless all of it is free."""
        for i, (first, last) in enumerate(self._free):
            if first <= start and start + size <= last:
                rest = [(first, start), (start + size, last)]
                self._free[i : i + 1] = [(a, b) for a, b in rest if a < b]
                return
        raise MemoryError(f"the range of size {size:#x} at {start:#x} is not free")

    def free(self, start: int, size: int) -> None:
        """Return a range that was taken with `alloc` or `reserve`."""
        end = start + size
        i = bisect_left(self._free, (start, end))
        if i < len(self._free) and self._free[i][0] == end:
            end = self._free.pop(i)[1]
        if i and self._free[i - 1][1] == start:
            i -= 1
            start = self._free.pop(i)[0]
        self._free.insert(i, (start, end))
