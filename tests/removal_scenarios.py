# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios of a program that uses an object while it is removed, to compare two file systems.

Each scenario prepares, has the object removed, and returns what the program sees then.
"""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import select
import stat
from collections.abc import Callable
from typing import Any

from file_operations import Watch, entries, events, map_it, opened, read_at, tried

Scenario = Callable[[str, str, Callable[[], None]], Any]
"""A function of a directory, the name of a readable and writable file in it, and a function that removes
both."""

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__.replace("_", " ")] = function
    return function


@scenario
def an_attribute_held_open(directory: str, name: str, remove: Callable[[], None]) -> Any:
    # Without lseek(2), which 6.1 allows in a removed file, and later kernels do not.
    path = os.path.join(directory, name)
    with opened(path, os.O_RDWR) as it, opened(path, os.O_RDWR) as other:
        os.read(it, 1)
        remove()
        results = {
            "read on": tried(lambda: len(os.read(it, 1))),  # the text of the first read
            "and on": tried(lambda: len(os.read(it, 100)) and len(os.read(it, 1))),
            "read from the start": tried(os.pread, it, 1, 0),
            "read elsewhere": tried(os.pread, it, 1, 100),
            "read of one who has not read": tried(os.read, other, 1),
            "write": tried(os.write, it, b"1\n"),
            "write at": tried(os.pwrite, it, b"1\n", 50),
            "write nothing": tried(os.write, it, b""),
            "read nothing": tried(os.read, it, 0),
            "fstat": [os.fstat(it).st_mode, os.fstat(it).st_size, os.fstat(it).st_nlink],
            "fsync": tried(os.fsync, it),
            "poll": events(it, select.POLLIN | select.POLLOUT | select.POLLPRI),
            "flock": tried(fcntl.flock, it, fcntl.LOCK_EX),
            "ioctl": tried(fcntl.ioctl, it, 0x5401, bytes(64)),
            "open it again": tried(functools.partial(os.open, f"/proc/self/fd/{it}", os.O_RDWR)),
            "ftruncate": tried(os.ftruncate, it, 0),
            "fchmod": tried(os.fchmod, it, 0o600),
            "mmap": tried(map_it, mmap.MAP_SHARED, mmap.PROT_READ, 4096, f"/proc/self/fd/{it}"),
        }
    return results


@scenario
def its_name(directory: str, name: str, remove: Callable[[], None]) -> Any:
    path = os.path.join(directory, name)
    tried(os.stat, path)
    number = os.stat(directory).st_ino
    remove()
    return {
        "stat": [tried(os.stat, path), tried(os.stat, directory)],
        "open": tried(os.open, path, os.O_RDONLY),
        "listed": tried(os.listdir, os.path.dirname(directory)),
        "chmod": tried(os.chmod, path, 0o600),
        "unlink": tried(os.unlink, path),
        "mkdir": tried(os.mkdir, directory),
        "create": tried(os.open, directory, os.O_CREAT | os.O_WRONLY),
        "inode number": number > 1,
    }


@scenario
def a_working_directory(directory: str, name: str, remove: Callable[[], None]) -> Any:
    os.chdir(directory)
    try:
        with opened(name, os.O_RDONLY):
            remove()
            tried(os.stat, directory)  # a removed name is noticed when it is looked up
            return {
                "getcwd": tried(lambda: os.getcwd() and "a name"),
                "stat .": stat.filemode(os.stat(".").st_mode),
                "list .": tried(os.listdir, "."),
                "its file": [tried(os.stat, name), tried(read_at, 0, 1, name)],
                "open .": tried(lambda: os.close(os.open(".", os.O_RDONLY))),
                "make a directory": tried(os.mkdir, "new"),
                "make a file": tried(os.open, "new", os.O_CREAT | os.O_WRONLY),
                "remove a file": tried(os.unlink, name),
                "chdir .": tried(os.chdir, "."),
                "stat ..": tried(lambda: stat.filemode(os.stat("..").st_mode)),
                "chdir ..": tried(os.chdir, ".."),
                "where that is": tried(os.getcwd) == os.path.dirname(os.path.realpath(directory)),
            }
    finally:
        os.chdir("/")


@scenario
def a_directory_held_open(directory: str, name: str, remove: Callable[[], None]) -> Any:
    with opened(directory, os.O_RDONLY) as it, opened(directory, os.O_RDONLY) as half_read:
        entries(half_read, 64)  # "." and ".."
        remove()
        mode = os.fstat(it).st_mode
        return {
            "list": tried(lambda: [entry.name for entry in entries(it)]),
            "list on": tried(lambda: [entry.name for entry in entries(half_read)]),
            "stat in it": tried(lambda: os.stat(name, dir_fd=it)),
            "open in it": tried(lambda: os.open(name, os.O_RDONLY, dir_fd=it)),
            "fstat": stat.filemode(mode),
            "fchdir": [tried(os.fchdir, it), tried(os.chdir, "/")],
            "fsync": tried(os.fsync, it),
            "fchmod": tried(os.fchmod, it, stat.S_IMODE(mode)),
        }


@scenario
def inotify_of_a_file(directory: str, name: str, remove: Callable[[], None]) -> Any:
    return watched(os.path.join(directory, name), directory, remove)


@scenario
def inotify_of_a_directory(directory: str, name: str, remove: Callable[[], None]) -> Any:
    return watched(directory, directory, remove)


@scenario
def inotify_of_the_directory_above(directory: str, name: str, remove: Callable[[], None]) -> Any:
    return watched(os.path.dirname(directory), directory, remove)


@scenario
def inotify_of_the_directory_that_stays(
    directory: str, name: str, remove: Callable[[], None]
) -> Any:
    return watched(os.path.dirname(os.path.dirname(directory)), directory, remove)


def watched(path: str, directory: str, remove: Callable[[], None]) -> Any:
    watch = Watch(path)
    try:
        remove()
        at_once = watch.events()
        tried(os.stat, directory)
        return at_once, watch.events()
    finally:
        watch.close()
