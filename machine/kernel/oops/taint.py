# SPDX-License-Identifier: GPL-2.0-or-later
"""The taint of the kernel, kernel/panic.c."""

from __future__ import annotations

import enum

from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING, Printk
from klpfs.machine.kernel.service import U32, service
from klpfs.machine.memory import PageFault


class Taint(enum.IntEnum):
    """Bits of /proc/sys/kernel/tainted, Documentation/admin-guide/tainted-kernels.rst."""

    PROPRIETARY_MODULE = 0
    FORCED_MODULE = 1
    CPU_OUT_OF_SPEC = 2
    FORCED_RMMOD = 3
    MACHINE_CHECK = 4
    BAD_PAGE = 5
    USER = 6
    DIE = 7
    OVERRIDDEN_ACPI_TABLE = 8
    WARN = 9
    CRAP = 10
    FIRMWARE_WORKAROUND = 11
    OOT_MODULE = 12
    UNSIGNED_MODULE = 13
    SOFTLOCKUP = 14
    LIVEPATCH = 15
    AUX = 16
    RANDSTRUCT = 17
    TEST = 18


_LETTERS = "PFSRMBUDAWCIOELKXTN"
_OF_MODULES = {
    Taint.PROPRIETARY_MODULE, Taint.FORCED_MODULE, Taint.CRAP, Taint.OOT_MODULE,
    Taint.UNSIGNED_MODULE, Taint.LIVEPATCH, Taint.AUX, Taint.TEST,
}  # fmt: skip


class Tainted:
    """The taint of one kernel. Bits are set and never cleared."""

    def __init__(self, printk: Printk) -> None:
        self._printk = printk
        self.mask = 0
        self.debug_locks = True
        """True as long as lockdep would be reliable. It only decides which line `add` logs."""

    def add(self, flag: int, *, lockdep_ok: bool = True) -> None:
        """``add_taint``: set a bit of the taint."""
        if not lockdep_ok and self.debug_locks:
            self.debug_locks = False
            self._printk(LOGLEVEL_WARNING, "Disabling lock debugging due to kernel taint")
        self.mask |= 1 << flag

    @service("add_taint")
    def add_taint(self, flag: U32, lockdep_now_unreliable: U32) -> None:
        if flag >= len(Taint):  # set_bit() would write behind the mask
            raise PageFault(flag // 8)
        self.add(flag, lockdep_ok=not lockdep_now_unreliable)

    @service("test_taint")
    def test_taint(self, flag: U32) -> int:
        return self.mask >> flag & 1

    @service("get_taint")
    def get_taint(self) -> int:
        return self.mask

    def __str__(self) -> str:
        """``print_tainted``: the text that reports have after ``Comm:``."""
        if not self.mask:
            return "Not tainted"
        letters = "".join(
            letter if self.mask >> bit & 1 else ("G" if letter == "P" else " ")
            for bit, letter in enumerate(_LETTERS)
        )
        return f"Tainted: {letters}"


def module_taint_letters(mask: int) -> str:
    """``module_flags_taint``: return the letters of a module's taint."""
    return "".join(
        letter
        for bit, letter in enumerate(_LETTERS)
        if mask >> bit & 1 and Taint(bit) in _OF_MODULES
    )
