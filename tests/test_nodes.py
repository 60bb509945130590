# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree without a mount: names, inode numbers, the content of open files."""

from __future__ import annotations

import errno
import gc
import os
import select
from collections.abc import Iterable

import pytest
import trio

from klpfs.fs.attributes import Attribute, ProcFile
from klpfs.fs.dynamic import DynamicDirectory
from klpfs.fs.nodes import PAGE_SIZE, Caller, Directory, Handle, Node, Root, Symlink
from klpfs.fs.streams import Stream, Upload

CALLER = Caller(pid=1, uid=0, gid=0)


class Counter:
    """A file whose text changes with each read, and that records what is stored."""

    def __init__(self) -> None:
        self.shown = 0
        self.stored: list[bytes] = []

    async def show(self, caller: Caller) -> bytes:
        self.shown += 1
        return b"made %d times\n" % self.shown

    async def store(self, caller: Caller, data: bytes) -> None:
        self.stored.append(data)


def read(handle: Handle, offset: int, size: int = PAGE_SIZE) -> bytes:
    return bytes(trio.run(handle.read, CALLER, offset, size))


def write(handle: Handle, data: bytes, offset: int = 0) -> int:
    return trio.run(handle.write, CALLER, offset, data)


class TestDirectory:
    def test_nlink_counts_subdirectories(self) -> None:
        root = Root()
        assert root.nlink == 2
        root.add("a", Directory())
        root.add("b", Directory())
        root.add("file", Attribute())
        assert root.nlink == 4
        root.remove("a")
        assert root.nlink == 3

    def test_inode_numbers_are_never_used_again(self) -> None:
        root = Root()
        first = root.add("a", Attribute())
        root.remove("a")
        assert root.add("a", Attribute()).ino > first.ino > root.ino == 1

    def test_owner_is_that_of_the_tree_until_changed(self) -> None:
        root = Root(uid=1000, gid=100)
        node = root.add("d", Directory()).add("a", Attribute())
        assert (node.uid, node.gid) == (1000, 100)
        node.uid = 7
        assert (node.uid, node.gid, root.uid) == (7, 100, 1000)

    def test_a_name_is_taken_once(self) -> None:
        root = Root()
        root.add("a", Attribute())
        with pytest.raises(FileExistsError):
            root.add("a", Attribute())
        with pytest.raises(FileNotFoundError):
            root.remove("b")

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 1025])
    def test_invalid_names(self, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            Root().add(name, Attribute())

    def test_a_node_is_in_one_place_only(self) -> None:
        root = Root()
        node = root.add("a", Attribute())
        with pytest.raises(ValueError, match="elsewhere"):
            root.add("b", node)
        root.remove("a")
        with pytest.raises(ValueError, match="elsewhere"):
            root.add("a", node)

    def test_removal_ends_all_that_is_below_and_says_so_from_the_bottom(self) -> None:
        root = Root()
        patch = root.add("patch", Directory())
        vmlinux = patch.add("vmlinux", Directory())
        patched = vmlinux.add("patched", Attribute())
        gone: list[str] = []
        root.on_removed.append(lambda directory, name, node: gone.append(name))
        root.remove("patch")
        assert gone == ["patched", "vmlinux", "patch"]
        assert not (patch.alive or vmlinux.alive or patched.alive)
        assert patch.nlink == 2
        assert list(root.entries()) == []

    def test_additions_are_announced(self) -> None:
        root = Root()
        come: list[tuple[Directory, str, Node]] = []
        root.on_added.append(lambda *what: come.append(what))
        patch = Directory()
        patch.add("enabled", Attribute())
        root.add("patch", patch)
        assert come == [(root, "patch", patch)]

    def test_find(self) -> None:
        root = Root()
        link = root.add("sys", Directory()).add("link", Symlink("../x"))
        assert root.find("sys/link") is link
        assert link.size == 4
        with pytest.raises(FileNotFoundError):
            root.find("sys/nothing")
        with pytest.raises(NotADirectoryError):
            root.find("sys/link/x")


class Tasks(DynamicDirectory):
    def __init__(self, numbers: set[int]) -> None:
        super().__init__()
        self.numbers = numbers
        self.made = 0

    def names(self) -> Iterable[str]:
        return map(str, sorted(self.numbers))

    def exists(self, name: str) -> bool:
        return name.isdecimal() and int(name) in self.numbers

    def make(self, name: str) -> Node:
        self.made += 1
        directory = Directory(0o555)
        directory.add("comm", ProcFile())
        return directory


class TestDynamicDirectory:
    def test_nodes_are_made_when_asked_for_and_stay_the_same(self) -> None:
        root = Root(uid=5)
        tasks = root.add("proc", Tasks({1, 2, 30000}))
        tasks.add("cmdline", ProcFile())
        assert list(tasks.entries()) == ["cmdline", "1", "2", "30000"]
        assert tasks.made == 0
        one = tasks.lookup("1")
        assert one is not None and one is tasks.lookup("1")
        assert (one.uid, one.attached, one.alive) == (5, False, True)
        assert tasks.lookup("3") is None

    def test_forgotten_nodes_are_let_go(self) -> None:
        tasks = Root().add("proc", Tasks({1}))
        ino = tasks.find("1").ino
        gc.collect()
        assert tasks.find("1").ino != ino

    def test_a_node_whose_name_is_removed_ends(self) -> None:
        root = Root()
        tasks = root.add("proc", Tasks({1}))
        gone: list[str] = []
        root.on_removed.append(lambda directory, name, node: gone.append(name))
        one, comm = tasks.find("1"), tasks.find("1/comm")
        tasks.numbers.clear()
        assert tasks.lookup("1") is None
        assert not one.alive and not comm.alive
        assert gone == ["comm", "1"]

    def test_nodes_of_removed_names_end_at_the_next_listing(self) -> None:
        root = Root()
        tasks = root.add("proc", Tasks({1, 2}))
        gone: list[str] = []
        root.on_removed.append(lambda directory, name, node: gone.append(name))
        kept = [tasks.find("1"), tasks.find("2")]
        tasks.numbers.remove(1)
        assert list(tasks.entries()) == ["2"]
        assert gone == ["comm", "1"]
        assert [node.alive for node in kept] == [False, True]


class TestAttribute:
    @pytest.mark.parametrize(
        ("show", "store", "mode"),
        [(True, False, 0o444), (False, True, 0o200), (True, True, 0o644)],
    )
    def test_mode_follows_from_what_it_does(self, show: bool, store: bool, mode: int) -> None:
        text = Counter()
        node = Attribute(text.show if show else None, text.store if store else None)
        assert node.mode & 0o777 == mode

    def test_reads_that_follow_one_another_see_one_text(self) -> None:
        text = Counter()
        handle = Attribute(text.show).open(CALLER, os.O_RDONLY)
        assert read(handle, 0, 5) == b"made "
        assert read(handle, 5, 1) == b"1"
        assert read(handle, 6, 100) == b" times\n"
        assert read(handle, 13, 100) == b""
        assert text.shown == 1
        assert read(handle, 0) == b"made 2 times\n"
        assert read(handle, 5, 1) == b"3"  # not at the end of the last read

    def test_each_open_has_its_own(self) -> None:
        text = Counter()
        node = Attribute(text.show)
        first, second = node.open(CALLER, 0), node.open(CALLER, 0)
        assert read(first, 0, 6) == b"made 1"
        assert read(second, 0, 6) == b"made 2"
        assert read(first, 6) == b" times\n"

    def test_a_page_at_most(self) -> None:
        text = Counter()

        async def long(caller: Caller) -> bytes:
            return b"x" * 5000

        node = Attribute(long, text.store)
        handle = node.open(CALLER, os.O_RDWR)
        assert len(read(handle, 0, 10000)) == PAGE_SIZE - 1
        assert write(handle, b"y" * 5000) == PAGE_SIZE
        assert text.stored == [b"y" * PAGE_SIZE]
        proc = ProcFile(long, text.store).open(CALLER, os.O_RDWR)
        assert len(read(proc, 0, 10000)) == 5000
        assert write(proc, b"z" * 5000) == 5000

    def test_bytes_are_stored_as_they_are_and_the_offset_does_not_matter(self) -> None:
        text = Counter()
        handle = Attribute(text.show, text.store).open(CALLER, os.O_RDWR)
        assert write(handle, b" 1\0 \n", offset=17) == 5
        assert write(handle, b"") == 0
        assert text.stored == [b" 1\0 \n"]

    @pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
    def test_root_too_may_not_write_what_cannot_be_written(self, flags: int) -> None:
        with pytest.raises(PermissionError):
            Attribute(Counter().show).open(CALLER, flags)

    @pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
    def test_root_too_may_not_read_what_cannot_be_read(self, flags: int) -> None:
        with pytest.raises(PermissionError):
            Attribute(store=Counter().store).open(CALLER, flags)

    def test_proc_refuses_later(self) -> None:
        handle = ProcFile(Counter().show).open(CALLER, os.O_RDWR)
        with pytest.raises(OSError) as caught:
            write(handle, b"x")
        assert caught.value.errno == errno.EIO

    def test_removed_while_open(self) -> None:
        text = Counter()
        root = Root()
        handle = root.add("a", Attribute(text.show, text.store)).open(CALLER, os.O_RDWR)
        assert read(handle, 0, 4) == b"made"
        root.remove("a")
        for attempt in (
            lambda: read(handle, 0),
            lambda: read(handle, 4),
            lambda: write(handle, b""),
        ):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.ENODEV
        assert (text.shown, text.stored) == (1, [])

    def test_poll_has_news_until_read(self) -> None:
        handle = Attribute(Counter().show).open(CALLER, 0)
        assert handle.poll(None) & (select.POLLERR | select.POLLPRI)
        read(handle, 0)
        assert not handle.poll(None) & (select.POLLERR | select.POLLPRI)


class TestStream:
    def test_a_handle_answers_as_a_file_that_can_do_nothing(self) -> None:
        handle = Stream(lambda node, caller, flags: Handle(node)).open(CALLER, 0)
        for attempt in (lambda: read(handle, 0), lambda: write(handle, b"x")):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EINVAL
        trio.run(handle.flush, CALLER)
        handle.release()

    def test_upload_takes_everything_at_once_when_closed(self) -> None:
        taken: list[bytes] = []

        async def take(caller: Caller, data: bytes) -> None:
            taken.append(data)

        handle = Upload(take).open(CALLER, os.O_WRONLY)
        trio.run(handle.flush, CALLER)  # a shell, after dup2
        write(handle, b"ab")
        write(handle, b"c", offset=2)
        assert taken == []
        trio.run(handle.flush, CALLER)
        trio.run(handle.flush, CALLER)
        assert taken == [b"abc"]

    def test_upload_has_a_limit(self) -> None:
        taken: list[bytes] = []

        async def take(caller: Caller, data: bytes) -> None:
            taken.append(data)

        handle = Upload(take, limit=3).open(CALLER, os.O_WRONLY)
        write(handle, b"abc")
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                write(handle, b"d")
            assert caught.value.errno == errno.EFBIG
        trio.run(handle.flush, CALLER)
        assert taken == []
