# SPDX-License-Identifier: GPL-2.0-or-later
"""How much guest code, or a module's file, can make this program remember.

What it takes is the guest's own RAM; but of some things there is an object outside of it for every few
bytes there. Linux has no such limits; no sane module comes near to them.
"""

from __future__ import annotations

from collections.abc import Sized

OBJECTS = 1 << 17
"""Of one kind: pending timers, work items, RCU callbacks, work queues, entries of /proc."""
LIST = 1 << 16
"""Entries of a list or an array in guest memory: a longer one goes round in circles."""
SYMBOLS = 1 << 18
"""Of one module."""
TABLE = 1 << 20
"""Bytes of a table of a module: exports, ftrace sites, bugs, exceptions, parameters."""
MODINFO = 1 << 20
"""Bytes of a module's .modinfo."""
PARAMETERS = 1 << 14
"""Bytes of the parameters that a module is loaded with."""


class Endless(Exception):
    """A list or an array in guest memory has no end."""


def check_room(objects: Sized) -> None:
    """Raises MemoryError if there are as many of a kind as there may be."""
    if len(objects) >= OBJECTS:
        raise MemoryError("too many objects")
