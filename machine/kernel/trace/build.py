# SPDX-License-Identifier: GPL-2.0-or-later
"""Construction of static keys, ftrace and the function tracer."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.kernel.trace.jump_label import JumpLabels
from klpfs.machine.kernel.trace.tracer import Tracer


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The services of this folder that other services use."""

    jump_labels: JumpLabels
    ftrace: Ftrace
    tracer: Tracer


def build(base: Base) -> Trace:
    """Build the services of this folder."""
    offer = base.services.offer
    jump_labels = offer(JumpLabels(base))
    ftrace = offer(Ftrace(base))
    return Trace(jump_labels=jump_labels, ftrace=ftrace, tracer=offer(Tracer(base, ftrace)))
