# SPDX-License-Identifier: GPL-2.0-or-later
"""What most parts of the core use."""

from __future__ import annotations

from dataclasses import dataclass

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.livepatch.abi import Abi
from klpfs.machine.kernel.livepatch.messages import Messages
from klpfs.machine.kernel.livepatch.mutex import KlpMutex
from klpfs.machine.kernel.livepatch.objects import Patches
from klpfs.machine.structs import Space


@dataclass(frozen=True, kw_only=True)
class Common:
    """The first argument of a part of the core."""

    base: Base
    abi: Abi
    messages: Messages
    klp_mutex: KlpMutex
    patches: Patches

    @property
    def space(self) -> Space:
        """Guest memory as structs."""
        return self.base.computer.space
