# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys/kernel/tracing``: what can be traced, and what is. Documentation/trace/ftrace.rst."""

from __future__ import annotations

import errno
from collections.abc import Callable

from klpfs.nodes import Caller, Directory, ProcFile
from machine.kernel.kernel import Kernel


class _Listing(ProcFile):
    """A file that nobody can write to, whatever its mode says."""

    unable_errno = errno.EINVAL

    def __init__(self, lines: Callable[[], str]) -> None:
        async def show(_caller: Caller) -> bytes:
            return lines().encode("utf-8", "surrogateescape")

        super().__init__(show, mode=0o440)


def tracefs(kernel: Kernel) -> Directory:
    """The directory with the lists of functions."""
    ftrace = kernel.ftrace
    root = Directory(0o700)
    root.add(
        "available_filter_functions",
        _Listing(lambda: "".join(f"{ftrace.name(site)}\n" for site in ftrace.sites())),
    )
    root.add(
        "enabled_functions",
        _Listing(lambda: "".join(f"{ftrace.describe(s)}\n" for s in ftrace.enabled_sites())),
    )
    return root
