# SPDX-License-Identifier: GPL-2.0-or-later
"""A row of the experiment, and what the definitions of the models say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klpfs.machine.kernel.livepatch.consistency import Model

KINDS = ("nested", "sequential", "across")
LOADS = ("short", "long", "never")


@dataclass
class Row:
    """The result of one model, with one kind of agreement under one load."""

    model: str
    kind: str
    load: str
    calls: int = 0
    torn: int = 0
    """Calls that saw a mix of old and new functions."""
    stale: int = 0
    """Lengths that one version stored and the other loaded. No model converts work in flight."""
    finished: int = 0
    """Transitions, of all kinds, that finished."""
    gave_up: int = 0
    """Transitions that the model gave up: EBUSY."""
    stalled: int = 0
    """Transitions that did not end in time."""
    seconds: float | None = None
    """Guest seconds of the longest transition that finished; None if none did."""
    stop: float = 0.0
    """Guest milliseconds for which a task was held, at most."""
    stops: int = 0
    """How often the machine was stopped; this takes no guest time."""
    host_us: float = 0.0
    """Host microseconds of the longest stop. They differ between runs with the same seed."""


def is_safe(model: Model, kind: str) -> bool:
    """Return whether the two axes leave no way to tear this kind of agreement.

    Nested calls agree if a task changes only after it has left the caller, and all functions change
    at once. The calls of one stay in the kernel agree if a task changes outside of the kernel, and
    all functions change at once. Calls of several tasks agree if all tasks change at once.
    """
    match kind:
        case "nested":
            return model.leave != "function" and model.switch != "function"
        case "sequential":
            return model.leave == "kernel" and model.switch != "function"
    return model.switch == "kernel"


def agrees(row: Row, model: Model) -> bool:
    """Return whether a row agrees with the definition of its model.

    What is safe is never torn. What is not safe is torn at least once under short calls, of which
    there are enough.
    """
    if is_safe(model, row.kind):
        return row.torn == 0
    return row.load != "short" or row.torn > 0
