# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys/kernel/tracing``: what can be traced, and what is. Documentation/trace/ftrace.rst."""

from __future__ import annotations

from klpfs.nodes import Directory
from klpfs.procfs import text_file
from machine.kernel.kernel import Kernel


def tracefs(kernel: Kernel) -> Directory:
    """The directory with the lists of functions."""
    ftrace = kernel.ftrace
    root = Directory(0o700)
    root.add(
        "available_filter_functions",
        text_file(lambda: "".join(f"{ftrace.name(site)}\n" for site in ftrace.sites()), 0o440),
    )
    root.add(
        "enabled_functions",
        text_file(
            lambda: "".join(f"{ftrace.describe(s)}\n" for s in ftrace.enabled_sites()), 0o440
        ),
    )
    return root
