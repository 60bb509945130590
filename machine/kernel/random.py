# SPDX-License-Identifier: GPL-2.0-or-later
"""Random numbers for the guest. drivers/char/random.c.

Under virtual time they are the same in every run.
"""

from __future__ import annotations

import os
from random import Random

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.service import U64, Ptr, service
from klpfs.machine.memory import PAGE_SIZE

_PTR_KEY_BYTES = 16


class RandomNumbers:
    """The machine's source of random numbers. It also sets the key of the hash that ``%p`` prints."""

    def __init__(self, computer: Computer, clock: Clock) -> None:
        self._memory = computer.memory
        self.bytes = Random(0).randbytes if clock.virtual else os.urandom
        """Function that returns the given number of random bytes."""
        key = computer.symbols.lookup("ptr_key")
        if key is not None:
            self._memory.write(key, self.bytes(_PTR_KEY_BYTES))

    @service("get_random_bytes")
    def get_random_bytes(self, buffer: Ptr, size: U64) -> None:
        while size:
            piece = min(size, PAGE_SIZE)  # a size that is too large faults where the memory ends
            self._memory.write(buffer, self.bytes(piece))
            buffer, size = buffer + piece, size - piece

    @service("get_random_u32")
    def get_random_u32(self) -> int:
        return int.from_bytes(self.bytes(4), "little")

    @service("get_random_u64")
    def get_random_u64(self) -> int:
        return int.from_bytes(self.bytes(8), "little")
