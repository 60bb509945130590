# SPDX-License-Identifier: GPL-2.0-or-later
"""The core's lines in the kernel log, with the prefix that ``pr_fmt`` gives them."""

from __future__ import annotations

from klpfs.machine.kernel.printk.printk import (
    LOGLEVEL_ERR,
    LOGLEVEL_NOTICE,
    LOGLEVEL_WARNING,
    Printk,
)


class Messages:
    """``pr_err``, ``pr_warn`` and ``pr_notice`` of kernel/livepatch/."""

    def __init__(self, printk: Printk) -> None:
        self._printk = printk

    def pr_err(self, text: str) -> None:
        """Log a line with level LOGLEVEL_ERR."""
        self.log(LOGLEVEL_ERR, text)

    def pr_warn(self, text: str) -> None:
        """Log a line with level LOGLEVEL_WARNING."""
        self.log(LOGLEVEL_WARNING, text)

    def pr_notice(self, text: str) -> None:
        """Log a line with level LOGLEVEL_NOTICE."""
        self.log(LOGLEVEL_NOTICE, text)

    def log(self, level: int, text: str) -> None:
        """Log a line."""
        self._printk(level, f"livepatch: {text}")
