# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row of the experiment is, and what the definitions say of it."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.livepatch.consistency import Model

KINDS = ("nested", "sequential", "across")
LOADS = ("short", "long", "never")


@dataclass
class Row:
    """One model under one kind of agreement and one load.

    Times are of the guest: ``seconds`` of the longest transition that ended (None: none did), ``stop``
    milliseconds that a task was held at most. ``stops``: how often the machine stood still, which is no
    time for the guest, and ``host_us`` of the host at most, which no seed can repeat. ``stale``: lengths
    stored by the one version and loaded by the other: no model has work in flight converted.
    """

    model: str
    kind: str
    load: str
    calls: int = 0
    torn: int = 0
    stale: int = 0
    finished: int = 0
    gave_up: int = 0
    stalled: int = 0
    seconds: float | None = None
    stop: float = 0.0
    stops: int = 0
    host_us: float = 0.0


def is_safe(model: Model, kind: str) -> bool:
    """Whether the two axes leave no way to tear it.

    A call nested in another needs that its caller has left, and that its functions change together.
    One stay in the kernel is of one version if a task changes outside of it, in all functions. Across
    tasks, all must change in one moment.
    """
    match kind:
        case "nested":
            return model.leave != "function" and model.switch != "function"
        case "sequential":
            return model.leave == "kernel" and model.switch != "function"
    return model.switch == "kernel"


def agrees(row: Row, model: Model) -> bool:
    """Whether a row is as the definitions have it: what is safe is never torn, and what is not safe is torn
    sometime, under short calls, where there are enough of them."""
    if is_safe(model, row.kind):
        return row.torn == 0
    return row.load != "short" or row.torn > 0
