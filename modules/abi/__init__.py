# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch APIs of other kernels: headers that are found before those of modules/include.

Each directory beside this file is one, named after the kernel that had the API. What a patch says of
itself is laid out as in that kernel; what the core keeps for itself behind it is the same in all.
"""

from __future__ import annotations

from pathlib import Path

LATEST = "latest"
NONE = "none"
"""A kernel without CONFIG_LIVEPATCH."""
NAMES = (LATEST, "6.1", "5.1", "4.12", "3.20")
"""Those that a module can be built for, the newest first."""


def include(abi: str) -> Path | None:
    """Its headers; None if those of modules/include are all."""
    directory = Path(__file__).resolve().parent / abi
    return directory if directory.is_dir() else None


def cflags(abi: str) -> tuple[str, ...]:
    """What to put in front of the other options of the compiler."""
    directory = include(abi)
    return (
        () if directory is None else (f"-I{directory}", f"-ffile-prefix-map={directory}/=include/")
    )
