# SPDX-License-Identifier: GPL-2.0-or-later
"""The refusal of a module."""

from __future__ import annotations

import errno
from typing import NoReturn

KERN_ERR, KERN_WARNING = 3, 4


class ElfError(Exception):
    """The kernel refuses a module.

    ``errno`` is the result of the system call. ``lines`` are the lines in the log, without line
    ends; ``level`` is their printk level. ``str()`` joins them.
    """

    def __init__(self, errno: int, *lines: str, level: int = KERN_ERR) -> None:
        super().__init__(errno, *lines)
        self.errno = errno
        self.lines = lines
        self.level = level

    def __str__(self) -> str:
        return "; ".join(self.lines)


def refuse(*lines: str, level: int = KERN_ERR) -> NoReturn:
    """Raise ElfError(ENOEXEC)."""
    raise ElfError(errno.ENOEXEC, *lines, level=level)
