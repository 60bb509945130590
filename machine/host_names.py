# SPDX-License-Identifier: GPL-2.0-or-later
"""Names from a machine that become names of files on the host."""

from __future__ import annotations

import os

NAME_MAX = 255
RELEASE_MAX = 64
"""The maximum length of a kernel's release in bytes (__NEW_UTS_LEN, include/uapi/linux/utsname.h)."""


def is_host_name(name: str, limit: int = NAME_MAX) -> bool:
    """Return whether a name may become the name of one file or directory of the host.

    It has 1 to ``limit`` bytes, all of them printable characters without spaces. It contains no slash,
    is neither ``.`` nor ``..``, and does not begin with ``-``, so that no program takes it for an option.
    """
    return (
        0 < len(os.fsencode(name)) <= limit
        and name.isprintable()
        and not set(name) & {" ", "/"}
        and name not in (".", "..")
        and not name.startswith("-")
    )
