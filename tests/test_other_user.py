# SPDX-License-Identifier: GPL-2.0-or-later
"""A mount and its daemon belong to the user of klpfs mount, tested with a second user."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from file_operations import NOBODY, call
from processes import daemon_of, errno_of, gone, in_a_child

from klpfs import control
from klpfs.machine.image import embedded
from klpfs.mounting import daemon, mounts, server
from klpfs.mounting.kernel_tree import kernel_tree
from klpfs.pytest_plugin import Machine
from klpfs.running import namespace

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become others"),
]

Ko = Callable[..., Path]


def by_nobody(attempt: Callable[[], object]) -> str:
    """Return the errno of an operation by another user."""
    found: str = in_a_child(lambda: errno_of(attempt), NOBODY)
    return found


def attempts(root: Path) -> dict[str, Callable[[], object]]:
    """Return the operations that only the owner of a machine may do."""

    def write(name: str) -> Callable[[], object]:
        return lambda: os.close(os.open(root / name, os.O_WRONLY))

    def read(name: str) -> Callable[[], object]:
        return lambda: (root / name).read_bytes()

    patch = "sys/kernel/livepatch/livepatch_sample"
    return {
        "enable": write(f"{patch}/enabled"),
        "force": write(f"{patch}/force"),
        "insmod": functools.partial(control.insmod, root, b"\x7fELF"),
        "rmmod": functools.partial(control.rmmod, root, "livepatch_sample"),
        "dmesg -C": functools.partial(control.clear_log, root),
        "the clock": write("machine/clock"),
        "system calls": write("machine/syscall"),
        "the log": write("dev/kmsg"),
        "a sysctl": write("proc/sys/kernel/ftrace_enabled"),
        "its memory": read("machine/memory"),
        "its registers": read("machine/registers"),
        "its allocations": read("machine/allocations"),
        "addresses": read("sys/module/livepatch_sample/sections/.text"),
        "debugfs": lambda: os.listdir(root / "sys/kernel/debug"),
        "tracefs": lambda: os.listdir(root / "sys/kernel/tracing"),
        "chmod": lambda: os.chmod(root / "machine/insmod", 0o666),
        "a new file": lambda: os.open(root / "sys/new", os.O_CREAT | os.O_WRONLY),
    }


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that all users can access, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="klpfs-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def shared(place: Path, ko: Ko) -> Iterator[Path]:
    """Return a machine of root, mounted with --allow-other."""
    machine = Machine(place, "--virtual-time", "--allow-other")
    try:
        machine.insmod(ko("livepatch-sample"))
        yield place
    finally:
        machine.umount()


def open_to_read(path: Path) -> None:
    """Open a file and close it again. Raises OSError."""
    os.close(os.open(path, os.O_RDONLY))


def test_with_allow_other_the_modes_decide(shared: Path) -> None:
    readable = ("proc/cmdline", "sys/kernel/livepatch/livepatch_sample/enabled", "proc/modules",
                "machine/disasm/cmdline_proc_show", "dev/kmsg",
                "sys/module/livepatch_sample/refcnt")  # fmt: skip
    for name in readable:
        assert by_nobody(functools.partial(open_to_read, shared / name)) == "success"
    assert in_a_child(lambda: os.listdir(shared / "sys/kernel/livepatch"), NOBODY) == [
        "livepatch_sample"
    ]
    refused = {what: by_nobody(attempt) for what, attempt in attempts(shared).items()}
    assert refused.pop("chmod") == "EPERM"
    assert set(refused.values()) == {"EACCES"}, refused


def test_what_is_refused_to_others_is_not_to_root(shared: Path) -> None:
    allowed = {what: errno_of(attempt) for what, attempt in attempts(shared).items()}
    assert allowed.pop("a new file") == "EACCES"  # to all users
    assert allowed.pop("insmod") == "ENOEXEC"  # 4 bytes are not a module
    assert allowed.pop("rmmod") == "EAGAIN"  # an enabled patch is in use
    assert set(allowed.values()) == {"success"}, allowed


def test_root_may_give_a_file_away(shared: Path) -> None:
    enabled = shared / "sys/kernel/livepatch/livepatch_sample/enabled"
    os.chown(enabled, NOBODY, -1)
    assert by_nobody(lambda: enabled.write_text("0")) == "success"
    os.chmod(shared / "machine/insmod", 0o222)
    assert by_nobody(lambda: control.insmod(shared, b"\x7fELF")) == "ENOEXEC"


def test_without_allow_other_the_mount_is_closed_to_others(place: Path) -> None:
    machine = Machine(place, "--virtual-time")
    try:
        refused = {what: by_nobody(attempt) for what, attempt in attempts(place).items()}
        refused |= {
            "stat": by_nobody(lambda: os.stat(place)),
            "list": by_nobody(lambda: os.listdir(place)),
            "read": by_nobody(lambda: (place / "proc/cmdline").read_text()),
        }
        assert set(refused.values()) == {"EACCES"}, refused
        # The commands of another user do not use it either.
        with pytest.raises(control.NoMachine):
            in_a_child(lambda: control.find_machine(str(place)), NOBODY)
        assert place not in in_a_child(control.machines, NOBODY)
    finally:
        machine.umount()


def test_others_cannot_unmount_it(shared: Path) -> None:
    for lazy in (False, True):
        with pytest.raises((OSError, mounts.MountError)):
            in_a_child(functools.partial(mounts.unmount, shared, lazy=lazy), NOBODY)
        assert (shared / "proc/modules").exists()
        assert not gone(daemon_of(shared))


class TestAMachineOfAUser:
    """A machine of a user other than root, in a mount namespace where all users can use /dev/fuse."""

    @pytest.fixture(autouse=True)
    def may_mount(self, place: Path) -> None:
        fusermount = shutil.which("fusermount3")
        if fusermount is None or not os.stat(fusermount).st_mode & stat.S_ISUID:
            pytest.skip("users may not mount here: there is no fusermount3 with set-user-id bit")
        os.chown(place, NOBODY, NOBODY)

    def test_is_the_users(self, place: Path, ko: Ko) -> None:
        module = ko("livepatch-sample").read_bytes()

        def use() -> tuple[int, str, str]:
            control.insmod(place, module)
            (place / "sys/kernel/livepatch/livepatch_sample/enabled").write_text("0")
            found = os.stat(place / "proc/cmdline")
            return found.st_uid, stat.filemode(found.st_mode), control.dmesg(place)

        uid, mode, log = with_a_users_machine(place, lambda: in_a_child(use, NOBODY))
        assert (uid, mode) == (NOBODY, "-r--r--r--")
        assert "livepatch: 'livepatch_sample': unpatching complete" in log

    def test_root_does_not_get_in_but_may_end_it(self, place: Path) -> None:
        def as_root() -> tuple[str, str, bool]:
            refused = errno_of(lambda: os.listdir(place))
            process = daemon_of(place)
            status = Path(f"/proc/{process}/status").read_text()
            mounts.unmount(place)
            return refused, status, gone(process)

        refused, status, ended = with_a_users_machine(place, as_root)
        assert refused == "EACCES"
        assert f"\nUid:\t{NOBODY}\t" in status
        assert ended

    def test_only_the_user_finds_it(self, place: Path) -> None:
        """Root could be made to run in a kernel of the user's, and to read files of its."""

        def find() -> str:
            try:
                return str(control.find_machine(str(place)))
            except control.NoMachine as error:
                return str(error)

        def both() -> tuple[str, bool, str]:
            return find(), place in control.machines(), in_a_child(find, NOBODY)

        by_root, listed, by_user = with_a_users_machine(place, both)
        assert by_root == f"the machine on {place} belongs to another user (uid {NOBODY})"
        assert not listed
        assert by_user == str(place)

    def test_the_user_finds_it_in_the_view_of_klpfs_run(self, place: Path) -> None:
        """There the user is root of a user namespace."""

        def inside() -> tuple[int, str, str, str]:
            pr_set_dumpable = 4  # setuid(2) has cleared it, and then /proc/self belongs to root
            ctypes.CDLL(None).prctl(pr_set_dumpable, 1, 0, 0, 0)
            root = mounts.open_machine(place)
            namespace.enter(place, root, [])
            found = control.find_machine(str(place))
            flags = {
                line.split()[4]: line.split()[5]
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
            }
            return os.geteuid(), str(found), flags["/proc"], Path("/proc/self/comm").read_text()

        try:
            uid, found, flags, _ = with_a_users_machine(place, lambda: in_a_child(inside, NOBODY))
        except namespace.NamespaceError as error:
            pytest.skip(str(error))
        assert (uid, found) == (0, str(place))
        assert {"nosuid", "nodev", "noexec"} <= set(flags.split(","))

    def test_the_user_ends_it(self, place: Path) -> None:
        def end() -> tuple[object, bool]:
            process = daemon_of(place)
            in_a_child(lambda: mounts.unmount(place), NOBODY)
            return mounts.mount_at(str(place)), gone(process)

        assert with_a_users_machine(place, end) == (None, True)

    def test_a_user_may_not_share_what_root_does_not_allow(self, place: Path) -> None:
        conf = Path("/etc/fuse.conf")
        if conf.exists() and "\nuser_allow_other" in f"\n{conf.read_text()}":
            pytest.skip("/etc/fuse.conf allows it")
        with pytest.raises(mounts.MountError, match="user_allow_other"):
            with_a_users_machine(place, lambda: None, allow_other=True)


def with_a_users_machine(
    place: Path, function: Callable[[], object], *, allow_other: bool = False
) -> Any:
    """Return the result of ``function``, called by root beside another user's machine on ``place``."""
    image = embedded.load()
    assert server  # imported before the user changes, who may not be able to read Python's library

    def inside() -> object:
        with tempfile.TemporaryDirectory() as devices:
            give_everybody_dev_fuse(devices)
            mount = functools.partial(daemon.serve, kernel_tree(image, virtual_time=True), place)
            try:
                in_a_child(lambda: mount(allow_other=allow_other), NOBODY)
                return function()
            finally:
                if mounts.mount_at(str(place)):
                    mounts.unmount(place, lazy=True)
                call("umount2", b"/dev/fuse", 0)
                call("umount2", os.fsencode(devices), 0)

    return in_a_child(inside)


def give_everybody_dev_fuse(directory: str) -> None:
    """This affects only this process and its children."""
    clone_newns, ms_bind, ms_rec, ms_private = 0x20000, 0x1000, 0x4000, 1 << 18
    call("unshare", clone_newns)
    call("mount", b"none", b"/", None, ctypes.c_ulong(ms_rec | ms_private), None)
    call("mount", b"tmpfs", os.fsencode(directory), b"tmpfs", ctypes.c_ulong(0), None)
    node = os.path.join(directory, "fuse")
    os.mknod(node, stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    os.chmod(node, 0o666)
    call("mount", os.fsencode(node), b"/dev/fuse", None, ctypes.c_ulong(ms_bind), None)
