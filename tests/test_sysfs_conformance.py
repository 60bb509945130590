# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount compared with the sysfs of this computer.

Each operation is done on an object of both, for each kind of object, by root and by another user. The
results are the same, or are in the table of differences.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import signal
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from file_operations import (
    DIRECTORY,
    FILES,
    KINDS,
    LINK,
    NOBODY,
    OPERATIONS,
    READ_ONLY,
    READ_WRITE,
    READABLE,
    WRITE_ONLY,
    call,
    tried,
)
from processes import become, in_a_child
from removal_scenarios import SCENARIOS

from klpfs import control
from klpfs.pytest_plugin import Machine

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

THEIRS = {
    DIRECTORY: "/sys/module/printk/parameters",
    READ_ONLY: "/sys/kernel/fscaps",
    READ_WRITE: "/sys/module/printk/parameters/always_kmsg_dump",
    WRITE_ONLY: "/sys/devices/pci*/*/rescan",
    LINK: "/sys/dev/char/1:3",
}
"""Files of the host. Writes to them have no effect."""
OURS = {
    DIRECTORY: "sys/module/conform/parameters",
    READ_ONLY: "sys/module/conform/parameters/constant",
    READ_WRITE: "sys/module/conform/parameters/flag",
    WRITE_ONLY: "sys/module/conform/parameters/number",
    LINK: "sys/module/conform_base/holders/conform",
}
USERS = {"root": 0, "nobody": NOBODY}


class Difference(NamedTuple):
    """An operation that differs from sysfs: both results, ours first, for some users and kinds."""

    name: str
    ours: Any
    theirs: Any
    kinds: tuple[str, ...] = ()
    users: tuple[str, ...] = tuple(USERS)


XATTR_KINDS = (DIRECTORY, *FILES)
FORCED: dict[str, list[Difference]] = {
    "FUSE cannot refuse pwrite(2) and allow pread(2), as seq_open() does: the mode of open decides": [
        Difference(
            "write what is open for reading", ["EBADF"] * 3, ["EBADF", "ESPIPE", "EBADF"], READABLE
        )
    ],
    "FUSE writes with O_APPEND at the end, as if the contents were a file's; we are not told": [
        Difference(
            "write with O_APPEND",
            ([(2, 4098), (2, 4100)], (b"N\n", 0)),
            ([(2, 2), (2, 4)], (b"N\n", 0)),
            users=("root",),
        )
    ],
    "the kernel lets one seek to 2^63 - 1 in a FUSE file (s_maxbytes), to 2^31 - 1 in sysfs": [
        Difference(f"lseek {whence} {offset}", (offset + start,) * 2, ("EINVAL", 3))
        for whence, offset, start in (
            ("SET", 1 << 40, 0), ("SET", (1 << 63) - 1, 0), ("CUR", 1 << 40, 3), ("END", 1 << 40, 4096)
        )
    ],
    "FUSE has private mappings for all files; shared ones are refused where there is no cache": [
        Difference(f"mmap private, {protection}", "mapped", "ENODEV", READABLE)
        for protection in ("none", "read", "write", "read and write")
    ],
    "FUSE answers FIBMAP with 0 where there is no block device, and asks nobody": [
        Difference("ioctl FIBMAP", bytes(64), "EINVAL", FILES, ("root",))
    ],
    "the kernel opens a FUSE file for reading to ask for its flags": [
        Difference("ioctl FS_IOC_GETFLAGS", "EACCES", "ENOTTY", (WRITE_ONLY,), ("root",))
    ],
    "the type of a FUSE file system is FUSE": [
        Difference("statfs: the type", "0x65735546", "0x62656572")
    ],
    "a FUSE file system with extended attributes is asked for security.capability at every echo >": [
        Difference("xattr user.a", ["ENOTSUP"] * 4, ["ENODATA", *["ENOTSUP"] * 3], XATTR_KINDS, ("root",)),
        Difference("xattr user.a", ["ENOTSUP", *["EACCES"] * 3], ["ENODATA", *["EACCES"] * 3],
                   (DIRECTORY, *READABLE), ("nobody",)),
        Difference("xattr trusted.a", ["ENOTSUP"] * 4, ["ENODATA", "ENODATA", None, None], KINDS, ("root",)),
        Difference("xattr security.a", ["ENOTSUP"] * 4, ["ENODATA", "ENODATA", None, None], KINDS, ("root",)),
        Difference("xattr security.a", ["ENOTSUP", *["EPERM"] * 3], ["ENODATA", *["EPERM"] * 3],
                   KINDS, ("nobody",)),
        Difference("xattr system.posix_acl_access", ["ENODATA", "ENOTSUP", "EINVAL", "ENOTSUP"],
                   ["ENOTSUP", "ENOTSUP", "EINVAL", "ENOTSUP"], XATTR_KINDS, ("root",)),
        Difference("xattr system.posix_acl_access", ["ENODATA", "EPERM", "EINVAL", "EPERM"],
                   ["ENOTSUP", "ENOTSUP", "EINVAL", "ENOTSUP"], XATTR_KINDS, ("nobody",)),
        Difference("xattr user.", ["ENOTSUP"] * 4, ["EINVAL"] * 4, XATTR_KINDS, ("root",)),
        Difference("xattr user.", ["ENOTSUP", *["EACCES"] * 3], ["EINVAL", *["EACCES"] * 3],
                   (DIRECTORY, *READABLE), ("nobody",)),
    ],
}  # fmt: skip
"""All differences from sysfs, by their cause."""

DIFFERENCES = {
    (user, kind, each.name): each
    for rows in FORCED.values()
    for each in rows
    for user in each.users
    for kind in each.kinds or OPERATIONS[each.name].kinds
    if (user, kind) != ("nobody", WRITE_ONLY)
    or each.name.startswith("xattr")  # the user may not even open it
}

CELLS = [
    (user, kind, name)
    for name, operation in OPERATIONS.items()
    for kind in operation.kinds
    for user in USERS
]


class Worker:
    """A process of a user that does operations on two files."""

    def __init__(self, uid: int) -> None:
        self._here, there = Pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                self._here.close()
                if uid:
                    become(uid)
                serve(there)
            finally:
                os._exit(0)
        there.close()

    def do(self, name: str, ours: str, theirs: str) -> tuple[Any, Any]:
        self._here.send((name, ours, theirs))
        assert self._here.poll(20), "no answer"
        mine, other = self._here.recv()
        return mine, other

    def close(self) -> None:
        self._here.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def serve(requests: Connection) -> None:
    signal.alarm(0)
    with contextlib.suppress(EOFError):
        while True:
            name, *paths = requests.recv()
            results = []
            for path in paths:
                with preserved(path):
                    results.append(tried(OPERATIONS[name].do, path))
            requests.send(results)


@contextlib.contextmanager
def preserved(path: str) -> Iterator[None]:
    """Restore mode, owner and value at the end."""
    before = os.lstat(path)
    value = b""
    if stat.S_ISREG(before.st_mode) and before.st_mode & 0o444:
        value = Path(path).read_bytes()
    try:
        yield
    finally:
        if os.geteuid() == 0:
            os.chown(path, before.st_uid, before.st_gid, follow_symlinks=False)
            if not stat.S_ISLNK(before.st_mode):
                os.chmod(path, stat.S_IMODE(before.st_mode))
            if value and before.st_mode & 0o200:
                Path(path).write_bytes(value)


def test_how_much_of_it_is_the_same() -> None:
    assert len(CELLS) > 2000
    assert set(DIFFERENCES) <= set(CELLS)
    assert len(FORCED) <= 8
    assert len(DIFFERENCES) < len(CELLS) / 20
    print(f"{len(CELLS)} cells, {len(CELLS) - len(DIFFERENCES)} equal, {len(DIFFERENCES)} listed "
          f"differences, for {len(FORCED)} reasons:")  # fmt: skip
    for reason, rows in FORCED.items():
        count = sum(each in rows for each in DIFFERENCES.values())
        print(f"{count:4} cells: {reason}")


def theirs_of(kind: str) -> str:
    """Return the object of the host. Skip the test if there is none."""
    found = sorted(glob.glob(THEIRS[kind]))
    if not found:
        pytest.skip(f"this host has no {THEIRS[kind]}")
    return found[0]


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """Lock the host's files against other runs of these tests."""
    with open(Path(tempfile.gettempdir(), "klpfs-sysfs-conformance.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def mount(alone: None, open_directory: Path, ko: Callable[..., Path]) -> Iterator[Path]:
    machine = Machine(open_directory, "--virtual-time", "--allow-other")
    try:
        machine.insmod(ko("conform_base"))
        machine.insmod(ko("conform"))
        yield open_directory
    finally:
        machine.umount()


@pytest.fixture(scope="module")
def workers(mount: Path) -> Iterator[Callable[[str], Worker]]:
    """Return a function that returns the worker of a user, a new one if the last has died."""
    running: dict[str, Worker] = {}

    def worker(user: str) -> Worker:
        if user not in running:
            running[user] = Worker(USERS[user])
        return running[user]

    def forget(user: str) -> None:
        running.pop(user).close()

    worker.forget = forget  # type: ignore[attr-defined]
    yield worker
    for each in running.values():
        each.close()


@pytest.mark.parametrize(("user", "kind", "name"), CELLS, ids=[", ".join(cell) for cell in CELLS])
def test_cell(
    mount: Path, workers: Callable[[str], Worker], user: str, kind: str, name: str
) -> None:
    try:
        ours, theirs = workers(user).do(name, str(mount / OURS[kind]), theirs_of(kind))
    except (AssertionError, EOFError):
        workers.forget(user)  # type: ignore[attr-defined]
        raise
    if difference := DIFFERENCES.get((user, kind, name)):
        assert (ours, theirs) == (difference.ours, difference.theirs)
    else:
        assert ours == theirs


# Removed objects


class Tap:
    """A network interface of the host, in a private network namespace."""

    def __init__(self, place: Path) -> None:
        clone_newns, clone_newnet, ms_rec, ms_private = 0x20000, 0x40000000, 0x4000, 1 << 18
        call("unshare", clone_newns | clone_newnet)
        call("mount", b"none", b"/", None, ctypes.c_ulong(ms_rec | ms_private), None)
        call("mount", b"sysfs", os.fsencode(place), b"sysfs", ctypes.c_ulong(0), None)
        self.directory = str(place / "devices/virtual/net/klpfs0/power")
        self.name = "control"
        self._tun = -1

    def make(self) -> None:
        self._tun = os.open("/dev/net/tun", os.O_RDWR)
        tunsetiff, iff_tap_no_pi = 0x400454CA, 0x1002
        fcntl.ioctl(self._tun, tunsetiff, struct.pack("16sH22x", b"klpfs0", iff_tap_no_pi))

    def remove(self) -> None:
        os.close(self._tun)


class LoadedModule:
    """A module of the mount."""

    def __init__(self, machine: Path, ko: Path) -> None:
        self._machine, self._ko = machine, ko
        self.directory = str(machine / "sys/module/conform/parameters")
        self.name = "flag"

    def make(self) -> None:
        with contextlib.suppress(FileExistsError):  # the other tests use it too
            control.insmod(self._machine, self._ko.read_bytes())

    def remove(self) -> None:
        control.rmmod(self._machine, "conform")


REMOVALS: dict[str, dict[str, tuple[Any, Any]]] = {
    # The kernel does not pass writes of 0 bytes to FUSE.
    "an attribute held open": {"write nothing": (0, "ENODEV")},
    # The daemon reports every removed name. sysfs reports only the topmost.
    "a working directory": {"getcwd": ("ENOENT", "a name")},
}
"""The differences from sysfs here, ours first."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_object_that_goes_away(
    mount: Path, tmp_path: Path, ko: Callable[..., Path], name: str
) -> None:
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this host has no /dev/net/tun, to make an object that can go")

    def both() -> Any:
        results = []
        for thing in (LoadedModule(mount, ko("conform")), Tap(tmp_path)):
            thing.make()
            results.append(SCENARIOS[name](thing.directory, thing.name, thing.remove))
        return results

    try:
        ours, theirs = in_a_child(both)
    finally:
        LoadedModule(mount, ko("conform")).make()
    for what, difference in REMOVALS.get(name, {}).items():
        assert (ours.pop(what), theirs.pop(what)) == difference
    assert ours == theirs
