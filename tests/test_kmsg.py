# SPDX-License-Identifier: GPL-2.0-or-later
"""dev/kmsg: Documentation/ABI/testing/dev-kmsg."""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import errno_of, opened

from klpfs.pytest_plugin import Machine

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

RECORD = re.compile(rb"(\d+),(\d+),(\d+),([-c]);(.*)\n", re.DOTALL)
LINE_MAX = 992  # LOG_LINE_MAX


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("kmsg"), "--virtual-time")
    try:
        yield machine
    finally:
        machine.umount()


@pytest.fixture
def kmsg(machine: Machine) -> Path:
    return machine.path("dev/kmsg")


@pytest.fixture
def at_end(kmsg: Path) -> Iterator[int]:
    """Return a reader that gets only new records."""
    with opened(kmsg, os.O_RDONLY | os.O_NONBLOCK) as log:
        os.lseek(log, 0, os.SEEK_END)
        yield log


def write(kmsg: Path, data: bytes) -> int:
    with opened(kmsg, os.O_WRONLY) as log:
        return os.write(log, data)


def record(log: int) -> tuple[int, int, bytes]:
    """Return priority, number and text of the next record."""
    found = RECORD.fullmatch(os.read(log, 8192))
    assert found
    return int(found[1]), int(found[2]), found[5]


def test_a_read_is_a_record_and_the_first_is_the_banner(kmsg: Path) -> None:
    with opened(kmsg) as log:
        priority, number, text = record(log)
        assert (priority, number) == (5, 0)
        assert text.startswith(b"Linux version ")


def test_the_numbers_have_no_gap(kmsg: Path) -> None:
    write(kmsg, b"one more\n")
    with opened(kmsg, os.O_RDONLY | os.O_NONBLOCK) as log:
        numbers = []
        while errno_of(lambda: numbers.append(record(log)[1])) == "success":
            pass
        assert numbers == list(range(len(numbers)))
        assert errno_of(lambda: os.read(log, 8192)) == "EAGAIN"


def test_blocking_readers_get_what_comes(kmsg: Path) -> None:
    with opened(kmsg) as log:
        os.lseek(log, 0, os.SEEK_END)
        timer = threading.Timer(0.2, write, [kmsg, b"here it is\n"])
        timer.start()
        assert record(log)[2] == b"here it is"
        timer.join()


@pytest.mark.parametrize(
    ("data", "priority", "text"),
    [
        (b"plain\n", 12, b"plain"),  # LOG_USER, the default level
        (b"<3>level\n", 11, b"level"),
        (b"<30>facility and level\n", 30, b"facility and level"),
        (b"<7>\n", 15, b""),
        (b"<>empty\n", 8, b"empty"),
        (b"<x>not a number\n", 12, b"<x>not a number"),
        (b"<4 not closed\n", 12, b"<4 not closed"),
        (b"\n", 12, b""),
        (b"a\nb\n", 12, b"a\\x0ab"),
        (b"tab\tback\\slash \xc3\xa9\n", 12, b"tab\\x09back\\x5cslash \\xc3\\xa9"),
        (b"x" * (LINE_MAX - 1) + b"\n", 12, b"x" * (LINE_MAX - 1)),
    ],
)
def test_what_is_written_can_be_read(
    kmsg: Path, at_end: int, data: bytes, priority: int, text: bytes
) -> None:
    assert write(kmsg, data) == len(data)
    found = record(at_end)
    assert (found[0], found[2]) == (priority, text)


def test_a_line_without_an_end_shows_when_the_next_one_comes(kmsg: Path, at_end: int) -> None:
    """The next message may continue it (KERN_CONT)."""
    for line in (b"no newline", b"ends here\0and not there\n"):
        assert write(kmsg, line) == len(line)
        assert errno_of(lambda: os.read(at_end, 8192)) == "EAGAIN"
        write(kmsg, b"the next\n")
        assert record(at_end)[2] == line.split(b"\0")[0]
        assert record(at_end)[2] == b"the next"


def test_a_line_that_is_too_long(kmsg: Path, at_end: int) -> None:
    assert errno_of(lambda: write(kmsg, b"x" * (LINE_MAX + 1))) == "EINVAL"
    assert errno_of(lambda: os.read(at_end, 8192)) == "EAGAIN"


def test_a_buffer_that_is_too_small_costs_the_record(kmsg: Path, at_end: int) -> None:
    write(kmsg, b"the first, which is long\n")
    write(kmsg, b"the second\n")
    assert errno_of(lambda: os.read(at_end, 10)) == "EINVAL"
    assert record(at_end)[2] == b"the second"


def test_each_open_has_a_place_of_its_own(kmsg: Path, at_end: int) -> None:
    with opened(kmsg, os.O_RDONLY | os.O_NONBLOCK) as other:
        write(kmsg, b"for both\n")
        assert record(at_end)[2] == b"for both"
        assert record(other)[1] == 0
        same = os.dup(other)
        assert record(same)[1] == 1
        assert record(other)[1] == 2
        os.close(same)


def test_seeking(kmsg: Path, at_end: int) -> None:
    write(kmsg, b"one\n")
    write(kmsg, b"two\n")
    assert record(at_end)[2] == b"one"
    os.lseek(at_end, 0, os.SEEK_SET)
    assert record(at_end)[1] == 0
    os.lseek(at_end, 0, os.SEEK_END)
    assert errno_of(lambda: os.read(at_end, 8192)) == "EAGAIN"


def test_poll(kmsg: Path, at_end: int) -> None:
    poll = select.poll()
    poll.register(at_end, select.POLLIN)
    # FUSE sends the offset of lseek(2) with the next read.
    assert errno_of(lambda: os.read(at_end, 8192)) == "EAGAIN"
    assert poll.poll(0) == []
    timer = threading.Timer(0.2, write, [kmsg, b"news\n"])
    timer.start()
    assert poll.poll(10_000) == [(at_end, select.POLLIN)]
    timer.join()
    assert record(at_end)[2] == b"news"
    assert poll.poll(0) == []


def test_it_can_be_read_and_written_through_one_descriptor(kmsg: Path) -> None:
    with opened(kmsg, os.O_RDWR | os.O_NONBLOCK) as log:
        os.lseek(log, 0, os.SEEK_END)
        os.write(log, b"to myself\n")
        assert record(log)[2] == b"to myself"


def test_records_that_were_overwritten(kmsg: Path) -> None:
    """This is the last test, as it fills the log."""
    with opened(kmsg, os.O_RDONLY | os.O_NONBLOCK) as slow, opened(kmsg, os.O_WRONLY) as log:
        assert record(slow)[1] == 0
        for number in range(1200):
            os.write(log, b"%d " % number + b"." * 900 + b"\n")
        poll = select.poll()
        poll.register(slow, select.POLLIN)
        events = select.POLLIN | select.POLLERR | select.POLLPRI
        poll.modify(slow, events)
        assert poll.poll(0) == [(slow, events)]
        assert errno_of(lambda: os.read(slow, 8192)) == "EPIPE"
        assert poll.poll(0) == [(slow, select.POLLIN)]
        _, first, _ = record(slow)
        assert first > 1
        assert record(slow)[1] == first + 1
