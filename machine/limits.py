# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits on the host memory that guest code, or the file of a module, can make this program use.

Guest data is in the guest's RAM, whose size is fixed. But for some guest objects of a few bytes
there is a Python object too, so their number is limited. Linux has no such limits. They are far
above what real modules need.
"""

from __future__ import annotations

from collections.abc import Sized

OBJECTS = 1 << 17
"""The number of objects of a kind: timers, work items, RCU callbacks, workqueues, /proc entries."""
LIST = 1 << 16
"""The number of entries of a list or array in guest memory. A longer list is taken for a loop."""
SYMBOLS = 1 << 18
"""The number of symbols of one module."""
TABLE = 1 << 20
"""The size of a table of a module in bytes: exports, ftrace sites, bugs, exceptions, parameters."""
MODINFO = 1 << 20
"""The size of a module's .modinfo in bytes."""
PARAMETERS = 1 << 14
"""The size of the parameters given to a module in bytes."""


class ListTooLong(Exception):
    """A list or an array in guest memory has more than `LIST` entries; most likely it is a loop."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: more than {LIST} entries")


def check_room(objects: Sized) -> None:
    """Raise MemoryError if there are already `OBJECTS` objects of a kind."""
    if len(objects) >= OBJECTS:
        raise MemoryError("too many objects")
