# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch APIs of older kernels: headers that replace some of modules/include.

Each directory beside this file is one API, named after a kernel that had it. The members of its
structs that a patch sets are laid out as in that kernel. The members behind them, which the core
uses, are the same in all APIs.
"""

from __future__ import annotations

from pathlib import Path

LATEST = "latest"
NONE = "none"
"""The name for a kernel without CONFIG_LIVEPATCH."""
NAMES = (LATEST, "6.1", "5.1", "4.12", "3.20")
"""The APIs that a module can be built for, the newest first."""


def include_directory(abi: str) -> Path | None:
    """Return the directory of an API's headers, or None if it has only those of modules/include."""
    directory = Path(__file__).resolve().parent / abi
    return directory if directory.is_dir() else None


def cflags(abi: str) -> tuple[str, ...]:
    """Return the compiler options for an API, which must come before all others."""
    directory = include_directory(abi)
    return (
        () if directory is None else (f"-I{directory}", f"-ffile-prefix-map={directory}/=include/")
    )
