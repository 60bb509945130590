# SPDX-License-Identifier: GPL-2.0-or-later
"""A small tree behind a real mount: the daemon, the host's kernel and ordinary programs."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import select
import signal
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from klpfs.fs.attributes import Attribute, ProcFile
from klpfs.fs.dynamic import DynamicDirectory
from klpfs.fs.nodes import POLL_READY, Caller, Directory, Handle, Node, Root, Symlink
from klpfs.fs.streams import Stream, Upload
from klpfs.mounting import daemon, mounts

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Pipe(Handle):
    """A file whose readers block until a write, and then all get its data."""

    news = trio.Event()
    text = b""
    waiting: ClassVar[list[Callable[[], None]]] = []

    def __init__(self, node: Node, flags: int) -> None:
        super().__init__(node)
        self.flags = flags

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        if not Pipe.news.is_set() and self.flags & os.O_NONBLOCK:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        await Pipe.news.wait()
        return Pipe.text

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        Pipe.text = data
        Pipe.news.set()
        for notify in Pipe.waiting:
            notify()
        Pipe.waiting.clear()
        return len(data)

    def poll(self, notify: Callable[[], None] | None) -> int:
        if Pipe.news.is_set():
            return POLL_READY
        if notify:
            Pipe.waiting.append(notify)
        return select.POLLOUT


class Numbers(DynamicDirectory):
    """A directory of 20,000 names that are generated on demand."""

    COUNT = 20_000

    def names(self) -> Iterable[str]:
        return map(str, range(self.COUNT))

    def exists(self, name: str) -> bool:
        return name.isdecimal() and int(name) < self.COUNT

    def make(self, name: str) -> Node:
        async def show(caller: Caller) -> bytes:
            return name.encode() + b"\n"

        return ProcFile(show)


@contextlib.asynccontextmanager
async def make_tree() -> AsyncIterator[Root]:
    root = Root()
    value = b"0\n"
    count = 0

    async def show_value(caller: Caller) -> bytes:
        return value

    async def store_value(caller: Caller, data: bytes) -> None:
        nonlocal value
        if data.strip() not in (b"0", b"1"):
            raise OSError(errno.EINVAL, "")
        value = data.strip() + b"\n"

    async def show_count(caller: Caller) -> bytes:
        nonlocal count
        count += 1
        return b"%d %s\n" % (count, b"." * 20)

    async def fail(caller: Caller) -> bytes:
        raise RuntimeError("a fault in show, for the log")

    async def show_caller(caller: Caller) -> bytes:
        return f"{caller.pid} {caller.uid} {caller.gid}\n".encode()

    async def sleep(caller: Caller, data: bytes) -> None:
        await trio.sleep_forever()

    async def busy(caller: Caller, data: bytes) -> None:
        raise OSError(errno.EBUSY, "")

    async def long(caller: Caller) -> bytes:
        return b"".join(b"%07d\n" % number for number in range(100_000))

    async def take(caller: Caller, data: bytes) -> None:
        nonlocal value
        if not data.startswith(b"\x7fELF"):
            raise OSError(errno.ENOEXEC, "")
        value = b"%d\n" % len(data)

    def make_object() -> Directory:
        made = Directory()
        made.add("enabled", Attribute(show_value, store_value))
        made.add("vmlinux", Directory()).add("patched", Attribute(show_value))
        made.add("remove", Attribute(None, remove_object))
        return made

    async def add_object(caller: Caller, data: bytes) -> None:
        root.add("object", make_object())

    async def remove_object(caller: Caller, data: bytes) -> None:
        root.remove("object")

    root.add("value", Attribute(show_value, store_value))
    root.add("count", Attribute(show_count))
    root.add("broken", Attribute(fail))
    root.add("caller", ProcFile(show_caller))
    root.add("sleep", Attribute(None, sleep))
    root.add("busy", Attribute(None, busy))
    root.add("long", ProcFile(long))
    root.add("upload", Upload(take))
    root.add("pipe", Stream(lambda node, caller, flags: Pipe(node, flags)))
    root.add("add", Attribute(None, add_object))
    root.add("remove", Attribute(None, remove_object))
    root.add("object", make_object())
    root.add("numbers", Numbers())
    root.add("link", Symlink("object/enabled"))
    yield root


def process_of(path: Path) -> int:
    mount = mounts.mount_at(str(path))
    assert mount is not None
    process = mounts.daemon_of(mount)
    assert process is not None
    return process


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def clean_up(path: Path) -> None:
    """Remove the mount and the processes, whatever has happened."""
    mount = mounts.mount_at(str(path))
    if mount is None:
        return
    process = mounts.daemon_of(mount)
    try:
        mounts.unmount(path, lazy=True)
    except mounts.MountError:
        assert process is not None
        os.kill(process, signal.SIGKILL)
        raise


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return a directory to mount on."""
    path = tmp_path / "a mount"
    path.mkdir()
    yield path
    clean_up(path)


@pytest.fixture
def mnt(place: Path) -> Path:
    """Return a mount of the tree above."""
    daemon.serve(make_tree, place, log_file=place.parent / "log")
    return place


def shell(script: str, mnt: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", "-c", script], cwd=mnt, capture_output=True, text=True, timeout=20, check=False
    )
    return done.returncode, done.stdout + done.stderr


def errno_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        assert error.errno is not None
        return errno.errorcode[error.errno]
    return "success"


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):  # the mount is gone
            os.close(descriptor)


class TestStat:
    def test_modes_sizes_and_links(self, mnt: Path) -> None:
        def seen(name: str) -> tuple[str, int, int]:
            found = os.lstat(mnt / name)
            return stat.filemode(found.st_mode), found.st_nlink, found.st_size

        assert seen("object") == ("drwxr-xr-x", 3, 0)
        assert seen("object/enabled") == ("-rw-r--r--", 1, 4096)
        assert seen("object/vmlinux/patched") == ("-r--r--r--", 1, 4096)
        assert seen("caller") == ("-r--r--r--", 1, 0)
        assert seen("add") == ("--w-------", 1, 4096)
        assert seen("link") == ("lrwxrwxrwx", 1, 14)

    def test_inode_numbers_and_times_stay(self, mnt: Path) -> None:
        before, again = os.stat(mnt / "object"), os.stat(mnt / "object")
        assert (before.st_ino, before.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
        assert abs(before.st_mtime - time.time()) < 60
        assert os.stat(mnt).st_ino == 1

    def test_listing(self, mnt: Path) -> None:
        found = {entry.name: entry for entry in os.scandir(mnt / "object")}
        assert set(found) == {"enabled", "vmlinux", "remove"}
        assert found["vmlinux"].is_dir(follow_symlinks=False)
        assert found["enabled"].is_file(follow_symlinks=False)
        assert found["enabled"].inode() == os.stat(mnt / "object/enabled").st_ino
        assert shell("ls -a object", mnt) == (0, ".\n..\nenabled\nremove\nvmlinux\n")

    def test_symlink(self, mnt: Path) -> None:
        assert os.readlink(mnt / "link") == "object/enabled"
        assert (mnt / "link").read_text() == "0\n"

    def test_statfs(self, mnt: Path) -> None:
        found = os.statvfs(mnt)
        assert (found.f_bsize, found.f_blocks, found.f_namemax) == (4096, 0, 255)

    def test_twenty_thousand_names(self, mnt: Path) -> None:
        names = os.listdir(mnt / "numbers")
        assert len(names) == len(set(names)) == Numbers.COUNT
        assert (mnt / "numbers/12345").read_text() == "12345\n"
        with opened(mnt / "numbers/7") as seven:
            assert os.stat(mnt / "numbers/7").st_ino == os.fstat(seven).st_ino
        assert not (mnt / "numbers/20000").exists()

    def test_the_type_of_the_mount(self, mnt: Path) -> None:
        assert mnt in mounts.find_mounts()
        line = next(line for line in Path("/proc/mounts").read_text().splitlines()
                    if line.startswith("klpfs ") and "a\\040mount" in line)  # fmt: skip
        assert line.split()[2] == "fuse.klpfs"
        assert "default_permissions" in line
        assert "allow_other" not in line


class TestReading:
    def test_one_open_sees_one_text(self, mnt: Path) -> None:
        with opened(mnt / "count") as count:
            first = os.read(count, 1) + os.read(count, 5) + os.read(count, 1000)
            assert first == b"1 ....................\n"
            assert os.read(count, 1000) == b""
            assert os.pread(count, 1, 0) == b"2"
        assert (mnt / "count").read_bytes()[:1] == b"3"

    def test_more_than_a_page(self, mnt: Path) -> None:
        text = (mnt / "long").read_bytes()
        assert len(text) == 800_000
        assert text.endswith(b"0099999\n")

    def test_who_reads(self, mnt: Path) -> None:
        _, text = shell("cat caller & echo $!; wait", mnt)
        process, caller = text.splitlines()
        assert caller == f"{process} {os.getuid()} {os.getgid()}"

    def test_fault_is_eio_and_logged(self, mnt: Path) -> None:
        assert errno_of((mnt / "broken").read_bytes) == "EIO"
        assert "a fault in show, for the log" in (mnt.parent / "log").read_text()
        assert (mnt / "value").read_text() == "0\n"

    def test_poll_on_an_attribute(self, mnt: Path) -> None:
        with opened(mnt / "value") as value:
            poll = select.poll()
            poll.register(value, select.POLLPRI)
            assert poll.poll(0) == [(value, select.POLLPRI | select.POLLERR)]
            os.read(value, 10)
            assert poll.poll(0) == []


class TestWriting:
    def test_echo(self, mnt: Path) -> None:
        assert shell("echo 1 > value && cat value", mnt) == (0, "1\n")
        assert os.stat(mnt / "value").st_size == 4096

    def test_append_and_offsets(self, mnt: Path) -> None:
        assert shell("echo 1 >> value && cat value", mnt) == (0, "1\n")
        with opened(mnt / "value", os.O_WRONLY) as value:
            assert os.pwrite(value, b"0", 1000) == 1
        assert (mnt / "value").read_text() == "0\n"

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("echo 2 > value", "Invalid argument"),
            ("echo 1 > busy", "Device or resource busy"),
        ],
    )
    def test_errors_reach_echo(self, mnt: Path, script: str, message: str) -> None:
        code, text = shell(f"/bin/{script}", mnt)
        assert code != 0
        assert message in text

    @AS_ROOT
    def test_root_may_not_write_what_is_read_only(self, mnt: Path) -> None:
        assert errno_of(lambda: os.open(mnt / "count", os.O_WRONLY)) == "EACCES"
        assert errno_of(lambda: os.open(mnt / "busy", os.O_RDONLY)) == "EACCES"
        with opened(mnt / "caller", os.O_WRONLY) as caller:  # as in /proc
            assert errno_of(lambda: os.write(caller, b"x")) == "EIO"

    def test_a_page_at_most(self, mnt: Path) -> None:
        with opened(mnt / "value", os.O_WRONLY) as value:
            assert os.write(value, b"1" + b"\n" * 4999) == 4096
            assert errno_of(lambda: os.write(value, b"z" * 5000)) == "EINVAL"

    def test_upload_fails_on_close(self, mnt: Path) -> None:
        upload = os.open(mnt / "upload", os.O_WRONLY)
        assert os.write(upload, b"not a module") == 12
        assert errno_of(lambda: os.close(upload)) == "ENOEXEC"

    def test_upload_by_cat(self, mnt: Path) -> None:
        source = mnt.parent / "module.ko"
        source.write_bytes(b"\x7fELF" + b"x" * 300_000)
        assert shell(f"cat '{source}' > upload; cat value", mnt) == (0, "300004\n")
        source.write_bytes(b"nonsense")
        code, text = shell(f"dd if='{source}' of=upload", mnt)
        assert code != 0
        assert "Exec format error" in text

    def test_truncate_and_chmod(self, mnt: Path) -> None:
        os.truncate(mnt / "value", 0)
        assert os.stat(mnt / "value").st_size == 4096
        os.chmod(mnt / "value", 0o600)
        assert stat.S_IMODE(os.stat(mnt / "value").st_mode) == 0o600

    @AS_ROOT
    def test_chown(self, mnt: Path) -> None:
        os.chown(mnt / "value", 12, 34)
        assert (os.stat(mnt / "value").st_uid, os.stat(mnt / "value").st_gid) == (12, 34)

    def test_fsync(self, mnt: Path) -> None:
        for name, result in (("value", "success"), ("caller", "EINVAL"), ("object", "EINVAL")):
            with opened(mnt / name) as descriptor:
                assert errno_of(functools.partial(os.fsync, descriptor)) == result


class TestRemoval:
    def test_removed_names_disappear_at_once(self, mnt: Path) -> None:
        for _ in range(20):
            old = os.stat(mnt / "object/enabled").st_ino
            assert os.stat(mnt).st_nlink == 4
            (mnt / "remove").write_text("1")
            assert errno_of(lambda: os.stat(mnt / "object/enabled")) == "ENOENT"
            assert errno_of(lambda: os.stat(mnt / "object")) == "ENOENT"
            assert "object" not in os.listdir(mnt)
            assert os.stat(mnt).st_nlink == 3
            (mnt / "add").write_text("1")
            assert os.stat(mnt / "object/enabled").st_ino > old

    def test_open_files_answer_enodev(self, mnt: Path) -> None:
        with opened(mnt / "object/enabled", os.O_RDWR) as enabled:
            assert os.read(enabled, 1) == b"0"
            (mnt / "remove").write_text("1")
            assert os.read(enabled, 10) == b"\n"  # the text of the first read
            assert errno_of(lambda: os.read(enabled, 1)) == "ENODEV"
            assert errno_of(lambda: os.pread(enabled, 1, 0)) == "ENODEV"
            assert errno_of(lambda: os.write(enabled, b"1")) == "ENODEV"
            assert os.fstat(enabled).st_size == 4096
            (mnt / "add").write_text("1")
            assert errno_of(lambda: os.read(enabled, 1)) == "ENODEV"
            assert (mnt / "object/enabled").read_text() == "0\n"

    def test_removal_of_a_working_directory(self, mnt: Path) -> None:
        script = """
            cd object/vmlinux && cat patched && echo 1 > ../../remove
            cat patched; ls -a; cat ../enabled; cd ..; ls; mkdir x
        """
        _, text = shell(script, mnt)
        assert text.startswith("0\n")
        assert text.count("No such file or directory") >= 2, text
        assert "vmlinux" not in text.replace("'vmlinux'", "")

    def test_a_file_that_removes_its_own_directory(self, mnt: Path) -> None:
        started = time.monotonic()
        (mnt / "object/remove").write_text("1")
        assert not (mnt / "object").exists()
        assert time.monotonic() - started < 0.9

    def test_removal_during_a_write_and_an_rm(self, mnt: Path) -> None:
        os.stat(mnt / "remove")  # else rm would hold the lock that the first lookup takes
        with subprocess.Popen(["sh", "-c", "echo 1 > sleep"], cwd=mnt) as writer:
            time.sleep(0.1)
            with subprocess.Popen(["rm", "-f", mnt / "sleep"], stderr=subprocess.DEVNULL) as rm:
                time.sleep(0.1)
                (mnt / "remove").write_text("1")  # it waits no longer than SETTLE
                writer.kill()
                rm.wait(5)
        assert eventually(lambda: not (mnt / "object").exists())


@contextlib.contextmanager
def reader(mnt: Path, script: str = "exec cat pipe") -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that is blocked in the mount."""
    with subprocess.Popen(
        ["sh", "-c", script], cwd=mnt, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            time.sleep(0.3)
            assert process.poll() is None
            yield process
        finally:
            process.kill()


class TestBlocking:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
    @pytest.mark.parametrize("script", ["exec cat pipe", "exec 5> sleep; printf 1 >&5"])
    def test_a_signal_ends_it(self, mnt: Path, number: signal.Signals, script: str) -> None:
        with reader(mnt, script) as process:
            process.send_signal(number)
            assert process.wait(3) == -number
        assert (mnt / "value").read_text() == "0\n"

    def test_a_signal_for_another_process_than_the_one_that_opened_it(self, mnt: Path) -> None:
        with reader(mnt, "exec 3< pipe; sh -c 'echo $$; exec cat' <&3; exit 3") as process:
            assert process.stdout is not None
            os.kill(int(process.stdout.readline()), signal.SIGKILL)
            assert process.wait(3) == 3

    def test_an_interrupted_system_call_comes_back(self, mnt: Path) -> None:
        code = (
            "import os, signal\n"
            "def handler(*_): raise InterruptedError\n"
            "signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
            "fd = os.open('pipe', os.O_RDONLY)\n"
            "try: os.read(fd, 10)\n"
            "except InterruptedError: print('EINTR')\n"
        )
        done = subprocess.run(["python3", "-c", code], cwd=mnt, capture_output=True, timeout=5,
                              check=True)  # fmt: skip
        assert done.stdout == b"EINTR\n"

    def test_ignored_and_blocked_signals_do_not_interrupt(self, mnt: Path) -> None:
        with reader(mnt, "trap '' TERM; exec cat pipe") as process:
            process.terminate()
            time.sleep(0.4)
            assert process.poll() is None
            (mnt / "pipe").write_text("news")
            process.kill()

    def test_two_hundred_readers_do_not_block_other_requests(self, mnt: Path) -> None:
        pipe = [os.open(mnt / "pipe", os.O_RDONLY) for _ in range(200)]
        texts: list[bytes] = []
        threads = [threading.Thread(target=lambda fd=fd: texts.append(os.read(fd, 10)))
                   for fd in pipe]  # fmt: skip
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        started = time.monotonic()
        assert (mnt / "value").read_text() == "0\n"
        assert time.monotonic() - started < 1
        (mnt / "pipe").write_text("news")
        for thread in threads:
            thread.join(5)
        assert texts == [b"news"] * 200
        for descriptor in pipe:
            os.close(descriptor)

    def test_nonblocking_and_poll(self, mnt: Path) -> None:
        with opened(mnt / "pipe", os.O_RDONLY | os.O_NONBLOCK) as pipe:
            assert errno_of(lambda: os.read(pipe, 10)) == "EAGAIN"
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            assert poll.poll(10) == []
            timer = threading.Timer(0.2, (mnt / "pipe").write_text, ["news"])
            timer.start()
            assert poll.poll(5000) == [(pipe, select.POLLIN)]
            timer.join()
            assert os.read(pipe, 10) == b"news"


class TestDaemon:
    def test_unmount_waits_for_the_daemon(self, mnt: Path) -> None:
        process = process_of(mnt)
        mounts.unmount(mnt)
        assert gone(process)
        assert mounts.mount_at(str(mnt)) is None

    def test_unmount_from_outside(self, mnt: Path) -> None:
        process = process_of(mnt)
        subprocess.run(["fusermount3", "-u", mnt], check=True)
        assert eventually(lambda: gone(process))

    def test_busy(self, mnt: Path) -> None:
        with opened(mnt / "value"):
            assert errno_of(lambda: mounts.unmount(mnt)) == "EBUSY"
            process = process_of(mnt)
            mounts.unmount(mnt, lazy=True)
            assert gone(process)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_unmount_with_files_open(self, mnt: Path, number: signal.Signals) -> None:
        process = process_of(mnt)
        with opened(mnt / "value") as value, reader(mnt) as blocked:
            os.kill(process, number)
            assert eventually(lambda: gone(process))
            assert mounts.mount_at(str(mnt)) is None
            assert errno_of(lambda: os.read(value, 10)) in ("ENOTCONN", "ECONNABORTED")
            assert blocked.wait(3) == 1

    def test_killed(self, mnt: Path) -> None:
        process = process_of(mnt)
        os.kill(process, signal.SIGKILL)
        assert eventually(lambda: gone(process))
        # A request that is under way when the connection ends gets ECONNABORTED.
        assert eventually(lambda: errno_of(lambda: os.listdir(mnt)) == "ENOTCONN")
        assert mnt in mounts.find_mounts()
        with pytest.raises(mounts.MountError, match="klpfs umount"):
            daemon.serve(make_tree, mnt)
        mounts.unmount(mnt)
        daemon.serve(make_tree, mnt)
        assert (mnt / "value").read_text() == "0\n"

    @AS_ROOT
    def test_aborted_connection_with_a_blocked_reader(self, mnt: Path) -> None:
        process = process_of(mnt)
        with reader(mnt) as blocked:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.umount2(os.fsencode(mnt), 1 | 2) == 0  # MNT_FORCE | MNT_DETACH
            assert blocked.wait(3) == 1
            assert eventually(lambda: gone(process))

    def test_invalid_mount_points(self, mnt: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path, message in (
            (tmp_path / "nothing", "does not exist"),
            (tmp_path / "file", "not a directory"),
            (mnt, "already mounted"),
        ):
            with pytest.raises(mounts.MountError, match=message):
                daemon.serve(make_tree, path)
        with pytest.raises(mounts.MountError, match="not a klpfs mount"):
            mounts.unmount(tmp_path)

    def test_a_machine_that_does_not_start(self, place: Path) -> None:
        @contextlib.asynccontextmanager
        async def fail() -> AsyncIterator[Root]:
            raise ValueError("no gcc: install gcc")
            yield Root()

        with pytest.raises(mounts.MountError, match=r"^no gcc: install gcc$"):
            daemon.serve(fail, place)
        assert mounts.mount_at(str(place)) is None

    def test_the_machine_is_shut_down(self, place: Path, tmp_path: Path) -> None:
        @contextlib.asynccontextmanager
        async def make() -> AsyncIterator[Root]:
            async with make_tree() as root:
                try:
                    yield root
                finally:
                    (tmp_path / "down").touch()

        daemon.serve(make, place)
        mounts.unmount(place)
        assert (tmp_path / "down").exists()

    def test_idle_means_idle(self, mnt: Path) -> None:
        process = process_of(mnt)
        (mnt / "value").read_text()
        time.sleep(0.5)

        def switches() -> int:
            status = Path(f"/proc/{process}/status").read_text()
            return sum(int(line.split()[1]) for line in status.splitlines() if "_switches" in line)

        before = switches()
        time.sleep(1)
        assert switches() == before
