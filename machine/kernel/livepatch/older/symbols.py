# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses in vmlinux that a patch brings along. kernel/livepatch/core.c of Linux 4.0."""

from __future__ import annotations

import errno

from klpfs.machine.kernel.livepatch.common import Messages
from klpfs.machine.symbols import SymbolTable


def klp_verify_vmlinux_symbol(
    symbols: SymbolTable, messages: Messages, name: str, address: int
) -> None:
    """Check that vmlinux has a symbol ``name`` at ``address``. Raises OSError(EINVAL), after a log line."""
    if address not in symbols.all_named(name, None):
        messages.pr_err(
            f"symbol '{name}' not found at specified address {address:#018x}, kernel mismatch?"
        )
        raise OSError(errno.EINVAL, f"{name} is not there")
