# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries of /proc: their names, and where their symbolic links lead. fs/proc/generic.c, fs/proc/root.c."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from stat import S_ISLNK

from klpfs.machine.kernel.sched.wait import ActiveReferences

PROCESS_LINKS = frozenset(("mounts", "net", "self", "thread-self"))
"""Names of the root of /proc that lead to the directory of the process that looks them up."""
KLPFS_NAMES = frozenset(("kallsyms", "modules", "sys"))
"""Names of the root whose contents klpfs provides."""
KERNEL_NAMES = frozenset((
    "acpi", "buddyinfo", "bus", "cgroups", "cmdline", "config.gz", "consoles", "cpuinfo", "crypto",
    "devices", "diskstats", "dma", "driver", "dynamic_debug", "execdomains", "filesystems", "fs",
    "interrupts", "iomem", "ioports", "irq", "kcore", "key-users", "keys", "kmsg", "kpagecgroup",
    "kpagecount", "kpageflags", "loadavg", "locks", "meminfo", "misc", "mtrr", "pagetypeinfo",
    "partitions", "pressure", "schedstat", "slabinfo", "softirqs", "stat", "swaps", "sysrq-trigger",
    "sysvipc", "timer_list", "tty", "uptime", "version", "vmallocinfo", "vmstat", "zoneinfo",
))  # fmt: skip
"""Other names of the root that Linux 6.1 registers on x86-64, with the options of Debian's kernel."""

_MAX_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h
_PATH_MAX = 4096
_PID_LIMIT = ((1 << 32) - 1 - 9) // 10


@dataclass(eq=False)
class ProcEntry:
    """A ``proc_dir_entry``: a directory, a link, or a file with a ``show`` function or ``proc_ops``."""

    name: str
    mode: int
    address: int
    parent: ProcEntry | None = None
    show: int = 0
    proc_ops: int = 0
    seq_ops: int = 0
    state_size: int = 0
    data: int = 0
    size: int = 0
    target: str = ""
    """The target of a symbolic link, as the guest wrote it. `link_target` is what the mount shows."""
    children: dict[str, ProcEntry] = field(default_factory=dict)
    in_use: ActiveReferences = field(default_factory=ActiveReferences)
    """References of the tasks that run its functions (``use_pde``)."""

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the root of /proc to this entry."""
        return (*self.parent.path, self.name) if self.parent else ()


def name_to_int(name: str) -> int | None:
    """Return the process id that a name of the root stands for, or None. fs/proc/util.c."""
    if not (name.isascii() and name.isdecimal()) or (len(name) > 1 and name[0] == "0"):
        return None
    if len(name) > 10 or int(name[:-1] or "0") >= _PID_LIMIT:
        return None
    return int(name)


# -- links ----------------------------------------------------------------------------------------


def link_target(link: ProcEntry) -> str:
    """Return the target that readlink(2) shows for a symbolic link: a relative path to an entry.

    Linux lets a link lead anywhere. Here the host's kernel follows it, so it may lead only to entries
    that guest code has registered. The path has no link in it, and no name that means anything but
    such an entry, wherever /proc is mounted.

    Raise OSError: ENOENT if there is no such entry, as for ``exe`` of a kernel thread; ELOOP; or
    ENAMETOOLONG.
    """
    assert link.parent is not None
    start, end = link.parent.path, _follow(link).path
    common = len(os.path.commonprefix([start, end]))
    path = "/".join([*[".."] * (len(start) - common), *end[common:]]) or "."
    if len(os.fsencode(path)) >= _PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return path


def _follow(link: ProcEntry) -> ProcEntry:
    """Return the entry that a link leads to. ``/proc`` in a target is the root."""
    names: deque[str] = deque()
    here, followed = link, 0
    while S_ISLNK(here.mode) or names:
        if S_ISLNK(here.mode):
            followed += 1
            if followed > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            absolute, parts = _parts(here.target)
            names.extendleft(reversed(parts))
            here = _root(here) if absolute else _parent(here)
        elif (name := names.popleft()) == "..":
            here = _parent(here)
        elif name in here.children:
            here = here.children[name]
        else:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return here


def _parts(target: str) -> tuple[bool, list[str]]:
    """Return whether a target is absolute, and its names, from the root of /proc if it is.

    Raise OSError(ENOENT) if it is absolute and not in /proc.
    """
    parts = [name for name in target.split("/") if name not in ("", ".")]
    if not target.startswith("/"):
        return False, parts
    if parts[:1] != ["proc"]:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return True, parts[1:]


def _parent(entry: ProcEntry) -> ProcEntry:
    """Return the directory of an entry. Raise OSError(ENOENT) for the root."""
    if entry.parent is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return entry.parent


def _root(entry: ProcEntry) -> ProcEntry:
    while entry.parent is not None:
        entry = entry.parent
    return entry


def leaves_proc(link: ProcEntry, taken: Iterable[str]) -> bool:
    """Return whether a link leads to a place that no entry will ever be.

    That is a place outside of /proc, or one of the root's names that are ``taken``.
    """
    try:
        absolute, parts = _parts(link.target)
    except OSError:
        return True
    assert link.parent is not None
    here = [] if absolute else list(link.parent.path)
    for name in parts:
        if name == "..":
            if not here:
                return True
            here.pop()
        else:
            here.append(name)
            if len(here) == 1 and (name in taken or name_to_int(name) is not None):
                return True
    return False
