# SPDX-License-Identifier: GPL-2.0-or-later
"""Construction of the error reports that need more than `Base`."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.oops.slub_debug import SlubDebug
from klpfs.machine.kernel.oops.watchdog import Watchdog
from klpfs.machine.kernel.work.timer import Timers


@dataclass(frozen=True, kw_only=True)
class Oops:
    """The services of this folder that are not in `Base`."""

    slub_debug: SlubDebug
    watchdog: Watchdog


def build(base: Base, *, timers: Timers) -> Oops:
    """Build the reports of the slab allocator and the watchdogs."""
    return Oops(slub_debug=SlubDebug(base), watchdog=Watchdog(base, timers))
