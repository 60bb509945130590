# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole tree of a mount, put together from its parts."""

from __future__ import annotations

import os

from klpfs.fs.debugfs import debugfs
from klpfs.fs.devfs import devfs
from klpfs.fs.machinefs import machinefs
from klpfs.fs.nodes import Directory, Root
from klpfs.fs.procfs import Procfs
from klpfs.fs.procview import HOST, SHOWN, ProcView
from klpfs.fs.sysfs import Sysfs
from klpfs.fs.tracefs import tracefs
from klpfs.machine.kernel.kernel import Kernel


def tree(kernel: Kernel) -> Root:
    """Return the root directory of a mount of ``kernel``. It belongs to the user of this process."""
    root = Root(os.getuid(), os.getgid())
    root.on_end.append(kernel.power_off)
    sysfs = Sysfs(kernel)
    kernel_directory = sysfs.root.lookup("kernel")
    assert isinstance(kernel_directory, Directory)
    kernel_directory.add("debug", debugfs(kernel))
    kernel_directory.add("tracing", tracefs(kernel))
    root.add("sys", sysfs.root)
    hosts = kernel.proc.reserve({HOST, *SHOWN})
    procfs = root.add("proc", Procfs(kernel).root)
    root.add("dev", devfs(kernel))
    root.add("machine", machinefs(kernel)).add("procview", ProcView(procfs, hosts))
    return root
