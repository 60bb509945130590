# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads and processes of the host, as its /proc shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from signal import SIGKILL
from typing import NamedTuple

from klpfs.machine.kernel.sched.task import UserRegisters


class Thread(NamedTuple):
    """A thread of the host."""

    process: int
    id: int


def comm(pid: int) -> str:
    """Return the name of a thread, or ``?`` if it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/comm", os.O_RDONLY)
        try:
            return os.fsdecode(os.read(descriptor, 64)).rstrip("\n")
        finally:
            os.close(descriptor)
    except OSError:
        return "?"


def user_registers(thread: int) -> UserRegisters | None:
    """Return the registers of a thread that waits in a system call, or None if we may not know."""
    try:
        with open(f"/proc/{thread}/syscall") as line:
            number, *words = line.read().split()
        *arguments, sp, ip = (int(word, 16) for word in words)
        call = UserRegisters(int(number), tuple(arguments), sp, ip, b"")
    except (OSError, ValueError):  # "running" has no registers
        return None
    if call.number < 0 or len(arguments) != 6:
        return None
    try:
        memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
        try:
            return call._replace(code=os.pread(memory, 64, ip - 42))
        finally:
            os.close(memory)
    except (OSError, ValueError, OverflowError):
        return call


def status(thread: Thread) -> dict[str, str]:
    """Return the fields of /proc/<process>/task/<thread>/status, or none if the thread is gone."""
    try:
        with open(f"/proc/{thread.process}/task/{thread.id}/status") as lines:
            fields = (line.partition(":") for line in lines)
            return {name: value.strip() for name, _, value in fields}
    except OSError:
        return {}


def wchan(thread: Thread) -> str:
    """Return the kernel function in which a thread sleeps, or "" if it is gone.

    Return "0" if it does not sleep, or if we may not know.
    """
    try:
        with open(f"/proc/{thread.process}/task/{thread.id}/wchan") as name:
            return name.read()
    except OSError:
        return ""


def has_signal(thread: Thread) -> bool:
    """Return whether a sleeping thread has a pending signal that it neither blocks nor ignores."""
    fields = status(thread)
    if not fields or fields["State"][0] not in "SD":
        return False
    pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return bool(pending & ~int(fields["SigBlk"], 16) & ~int(fields["SigIgn"], 16))


def fatal_signal_pending(thread: int) -> bool:
    """Return whether a thread is gone, or will be as soon as it gets out of its system call.

    The kernel adds a SIGKILL for each signal that kills the process (``complete_signal``).
    """
    fields = status(Thread(thread, thread))
    if not fields:
        return True
    pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return bool(pending >> SIGKILL - 1 & 1)


def kill(process: int, number: int) -> None:
    """Kill a process by a signal, or by SIGKILL if it blocks, ignores or handles that signal.

    Raise OSError if the process is gone, or belongs to another user.
    """
    descriptor = os.pidfd_open(process)
    try:
        fields = status(Thread(process, process))
        masks = (int(fields.get(name, "0"), 16) for name in ("SigBlk", "SigIgn", "SigCgt"))
        if any(mask >> number - 1 & 1 for mask in masks):
            number = SIGKILL
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def lives_in_guest(process: int) -> bool:
    """Return whether a machine of klpfs is mounted on the /sys of a process, as by ``klpfs run``."""
    try:
        with open(f"/proc/{process}/mountinfo") as lines:
            mounts = [line.split() for line in lines]
    except OSError:
        return False
    kinds = [words[words.index("-") + 1] for words in mounts if words[4] == "/sys"]
    return kinds[-1:] == ["fuse.klpfs"]


def thread_group(thread: int) -> int | None:
    """Return the process of a thread, or None if it is gone."""
    group = status(Thread(thread, thread)).get("Tgid") if thread else None
    return int(group) if group else None


def processes() -> Iterator[int]:
    """Yield the pid of each process."""
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def threads(process: int) -> list[Thread]:
    """Return the threads of a process, none if it is gone."""
    try:
        return [Thread(process, int(name)) for name in os.listdir(f"/proc/{process}/task")]
    except OSError:
        return []


def has_open(process: int, ino: int) -> bool | None:
    """Return whether a process has a file with this inode number open, or None if we may not know."""
    wanted = f"ino:\t{ino}\n"
    try:
        for descriptor in os.listdir(f"/proc/{process}/fdinfo"):
            try:
                with open(f"/proc/{process}/fdinfo/{descriptor}") as info:
                    if wanted in info.read():
                        return True
            except FileNotFoundError:
                continue  # closed meanwhile
    except PermissionError:
        return None
    except OSError:
        return False
    return False
