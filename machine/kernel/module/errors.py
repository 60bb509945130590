# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors in a module file: log lines, and the errno of the system call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from klpfs.machine.elf import ElfError
from klpfs.machine.kernel.printk.printk import Printk


@contextmanager
def elf_errors_logged(printk: Printk) -> Iterator[None]:
    """Log the message of an ElfError, and raise OSError with its errno instead."""
    try:
        yield
    except ElfError as error:
        for line in error.lines:
            printk(error.level, line)
        raise OSError(error.errno, str(error)) from None
