# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations on a file, a directory or a link, whose results are compared between file systems.

`OPERATIONS` has them by name. Each takes a path and returns a comparable result; an OSError is a
result too. None leaves a descriptor open, changes a working directory, or creates a file where sysfs
refuses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import select
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

DIRECTORY, READ_ONLY, READ_WRITE, WRITE_ONLY, LINK = (
    "directory", "read-only", "read-write", "write-only", "link",
)  # fmt: skip
KINDS = (DIRECTORY, READ_ONLY, READ_WRITE, WRITE_ONLY, LINK)
FILES = (READ_ONLY, READ_WRITE, WRITE_ONLY)
READABLE = (READ_ONLY, READ_WRITE)

NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


class Operation(NamedTuple):
    """An operation, and the kinds of objects that it applies to."""

    kinds: tuple[str, ...]
    do: Callable[[str], Any]


OPERATIONS: dict[str, Operation] = {}


def operation(
    *kinds: str, name: str = ""
) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    def register(function: Callable[[str], Any]) -> Callable[[str], Any]:
        title = name or function.__name__.replace("_", " ")
        assert title not in OPERATIONS, title
        OPERATIONS[title] = Operation(kinds, function)
        return function

    return register


def tried(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call, or the name of its errno."""
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library that sets errno. Raise OSError."""
    result = int(getattr(libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def long(number: int) -> ctypes.c_long:
    return ctypes.c_long(number)


@contextlib.contextmanager
def opened(path: str, flags: int | None = None) -> Iterator[int]:
    """Open a file with ``flags``, by default for all access that is permitted."""
    descriptor = -1
    for mode in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY) if flags is None else (flags,):
        try:
            descriptor = os.open(path, mode)
            break
        except OSError:
            if mode == os.O_RDONLY or flags is not None:
                raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def position(descriptor: int) -> Any:
    return tried(os.lseek, descriptor, 0, os.SEEK_CUR)


# open

ACCESS = {"O_RDONLY": os.O_RDONLY, "O_WRONLY": os.O_WRONLY, "O_RDWR": os.O_RDWR, "3": 3}
FLAGS = ("0", "O_APPEND", "O_TRUNC", "O_CREAT", "O_CREAT|O_EXCL", "O_CREAT|O_TRUNC", "O_DIRECTORY",
         "O_CREAT|O_DIRECTORY", "O_NOFOLLOW", "O_PATH", "O_PATH|O_NOFOLLOW", "O_PATH|O_DIRECTORY",
         "O_DIRECT", "O_NONBLOCK", "O_SYNC", "O_NOATIME", "O_TMPFILE", "O_NOCTTY|O_CLOEXEC")  # fmt: skip


def flags_of(text: str) -> int:
    return sum(getattr(os, name) for name in text.split("|") if name != "0")


def open_with(flags: int, path: str) -> Any:
    with opened(path, flags) as descriptor:
        return oct(fcntl.fcntl(descriptor, fcntl.F_GETFL))


for access, access_bits in ACCESS.items():
    for flags in FLAGS:
        operation(*KINDS, name=f"open {access}|{flags}")(
            functools.partial(open_with, access_bits | flags_of(flags))
        )


def open_new(flags: int, name: str, path: str) -> Any:
    with opened(os.path.join(path, name), flags):
        return "opened"


for flags in ("0", "O_CREAT", "O_CREAT|O_EXCL", "O_CREAT|O_TRUNC", "O_PATH", "O_DIRECTORY"):
    for access in ("O_RDONLY", "O_WRONLY", "O_RDWR"):
        operation(*KINDS, name=f"open {access}|{flags} of a new name")(
            functools.partial(open_new, ACCESS[access] | flags_of(flags), "new")
        )
for title, name in (("an empty name", ""), ("dot", "."), ("dot dot", ".."), ("dot slash", "./"),
                    ("a long name", "x" * 255), ("a name with a newline", "a\nb"),
                    ("a name that is not UTF-8", "\udcff")):  # fmt: skip
    operation(*KINDS, name=f"open {title} in it")(functools.partial(open_new, os.O_RDONLY, name))
operation(DIRECTORY, name="create a long name")(
    functools.partial(open_new, os.O_CREAT | os.O_WRONLY, "x" * 255)
)


@operation(*KINDS)
def trailing_slash(path: str) -> Any:
    return [tried(open_with, os.O_RDONLY, path + "/"), tried(os.stat, path + "/.") == "ENOTDIR"]


@operation(*KINDS)
def open_by_proc_self_fd(path: str) -> Any:
    with opened(path, os.O_PATH | os.O_NOFOLLOW) as it:
        return [tried(open_with, mode, f"/proc/self/fd/{it}") for mode in (0, 1, 2)]


@operation(*KINDS)
def operations_on_o_path(path: str) -> Any:
    with opened(path, os.O_PATH | os.O_NOFOLLOW) as it:
        return [
            tried(os.read, it, 1),
            tried(os.write, it, b"1"),
            tried(os.lseek, it, 0, 0),
            tried(os.fchmod, it, 0o644),
            tried(os.fsync, it),
            stat.filemode(os.fstat(it).st_mode),
        ]


@operation(*FILES)
def execute(path: str) -> Any:
    return tried(os.execv, path, [path])


@operation(*FILES)
def change_directory_to_it(path: str) -> Any:
    return tried(os.chdir, path)


# read


def read_pieces(sizes: tuple[int, ...], path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        return [(tried(os.read, it, size), position(it)) for size in sizes]


for sizes in ((4096, 4096), (1, 1, 1, 1), (0, 1), (1, 0, 1), (2, 1), (100_000, 1), (1 << 20,)):
    operation(*READABLE, DIRECTORY, name=f"read {sizes}")(functools.partial(read_pieces, sizes))


def read_at(offset: int, size: int, path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        return tried(os.pread, it, size, offset), position(it)


for offset in (0, 1, 2, 3, 100, 4095, 4096, 4097, 5000, 1 << 20, 1 << 40, (1 << 63) - 2, -1):
    operation(*READABLE, DIRECTORY, name=f"pread at {offset}")(
        functools.partial(read_at, offset, 100)
    )


@operation(*READABLE)
def pread_between_reads(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        return [
            os.read(it, 1),
            os.pread(it, 1, 0),
            os.read(it, 1),
            os.pread(it, 9, 1),
            os.read(it, 1),
        ]


@operation(*READABLE)
def readv(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        buffers = [bytearray(1), bytearray(0), bytearray(3), bytearray(5000)]
        count = os.readv(it, buffers)
        again = os.readv(it, buffers[:1])
        at = os.preadv(it, [bytearray(1), bytearray(1)], 1)
        return count, [bytes(buffer[:4]) for buffer in buffers], again, at, position(it)


@operation(*READABLE)
def read_after_lseek(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        pieces = []
        for offset in (1, 0, 2, 5000, 0):
            os.lseek(it, offset, os.SEEK_SET)
            pieces.append((os.read(it, 10), position(it)))
        return pieces


@operation(*READABLE)
def read_with_a_bad_buffer(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        return [tried(call, "read", it, ctypes.c_void_p(8), long(10)), os.read(it, 10)]


@operation(*FILES, DIRECTORY)
def read_what_is_open_for_writing(path: str) -> Any:
    with opened(path, os.O_WRONLY) as it:
        return [tried(os.read, it, 1), tried(os.pread, it, 1, 0), tried(os.read, it, 0)]


@operation(*FILES, DIRECTORY)
def write_what_is_open_for_reading(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        return [tried(os.write, it, b"0"), tried(os.pwrite, it, b"0", 0), tried(os.write, it, b"")]


@operation(*READABLE)
def two_opens_have_two_positions(path: str) -> Any:
    with opened(path, os.O_RDONLY) as first, opened(path, os.O_RDONLY) as second:
        copy = os.dup(first)
        pieces = [os.read(first, 1), os.read(second, 1), os.read(copy, 1), os.read(second, 9)]
        os.close(copy)
        return pieces


@operation(*READABLE)
def sendfile(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it, tempfile.TemporaryFile() as copy:
        count = tried(os.sendfile, copy.fileno(), it, None, 100)
        return count, os.pread(copy.fileno(), 100, 0), position(it)


@operation(*READABLE)
def splice_to_a_pipe(path: str) -> Any:
    read, write = os.pipe()
    try:
        with opened(path, os.O_RDONLY) as it:
            return [tried(os.splice, it, write, 100), os.read(read, 100), position(it)]
    finally:
        os.close(read)
        os.close(write)


# write


def write_all(texts: tuple[bytes, ...], flags: int, path: str) -> Any:
    with opened(path, os.O_WRONLY | flags) as it:
        done = [(tried(os.write, it, text), position(it)) for text in texts]
    return done, contents(path)


def contents(path: str) -> Any:
    return tried(read_at, 0, 100, path)


def shown(text: bytes) -> str:
    return repr(text) if len(text) < 40 else f"{text[:2]!r}*{len(text)}"


BOOLEANS = (b"", b"1", b"1\n", b"0\n", b"1 ", b"1 \n", b" 1", b"1\0", b"1\0junk", b"\0", b"\n", b"1\n\n",
            b"junk\n", b"Y", b"y\n", b"n", b"on\n", b"off\n", b"o", b"2\n", b"-1\n", b"01", b"\xff",
            b"1" + b"\n" * 4094, b"1" + b"\n" * 4095, b"1" + b"\n" * 4096, b"1" + b"\n" * 9000,
            b"z" * 5000, b"1" * 300_000)  # fmt: skip
ZEROS = (b"", b"0", b"0\n", b"0 ", b" 0", b"0\0", b"0\0junk", b"\0", b"\n", b"0\n\n", b"junk\n",
         b"00", b"0x0\n", b"-1\n", b"+0", b"0" * 4095, b"0" * 4096, b"0" * 4097, b"0" * 9000,
         b"z" * 5000)  # fmt: skip
"""Values that can be written to any file for a number without an effect."""

for kind, texts in ((READ_WRITE, BOOLEANS), (WRITE_ONLY, ZEROS)):
    for text in texts:
        operation(kind, name=f"{kind}: write {shown(text)}")(
            functools.partial(write_all, (text,), 0)
        )
for several in ((b"1", b"0"), (b"0\n", b"1\n"), (b"junk", b"1"), (b"1", b"junk"), (b"", b"1", b"")):
    operation(READ_WRITE, name=f"write {several}")(functools.partial(write_all, several, 0))
for flag in ("O_APPEND", "O_TRUNC", "O_SYNC", "O_APPEND|O_TRUNC", "O_NONBLOCK"):
    operation(READ_WRITE, name=f"write with {flag}")(
        functools.partial(write_all, (b"1\n", b"0\n"), flags_of(flag))
    )


def write_at(offset: int, path: str) -> Any:
    with opened(path, os.O_WRONLY) as it:
        done = tried(os.pwrite, it, b"0\n", offset), position(it)
    return done, os.stat(path).st_size, contents(path)


for offset in (0, 1, 4095, 4096, 5000, 1 << 40, -1):
    operation(READ_WRITE, WRITE_ONLY, name=f"pwrite at {offset}")(
        functools.partial(write_at, offset)
    )


@operation(READ_WRITE, WRITE_ONLY)
def writev(path: str) -> Any:
    with opened(path, os.O_WRONLY) as it:
        done = [
            tried(os.writev, it, [b"0", b"\n"]),
            tried(os.writev, it, [b"junk", b"0"]),
            tried(os.writev, it, [b"0", b"\0", b"\n" * 5000]),
            tried(os.writev, it, []),
            tried(os.pwritev, it, [b"0", b"\n"], 7),
        ]
        return done, position(it), contents(path)


@operation(READ_WRITE)
def read_and_write_share_a_position(path: str) -> Any:
    with opened(path, os.O_RDWR) as it:
        return [
            tried(os.read, it, 1), tried(os.write, it, b"1\n"), tried(os.read, it, 10),
            tried(os.lseek, it, 0, 0), tried(os.read, it, 10), tried(os.read, it, 10), position(it),
        ]  # fmt: skip


@operation(READ_WRITE)
def a_reader_sees_one_text(path: str) -> Any:
    with opened(path, os.O_RDONLY) as reader:
        first = os.read(reader, 1)
        write_all((b"1\n",), 0, path)
        return [first, os.read(reader, 10), os.pread(reader, 10, 0), os.pread(reader, 1, 0)]


@operation(READ_WRITE, WRITE_ONLY)
def write_a_bad_buffer(path: str) -> Any:
    with opened(path, os.O_WRONLY) as it:
        return tried(call, "write", it, ctypes.c_void_p(8), long(10))


@operation(READ_WRITE)
def splice_from_a_pipe(path: str) -> Any:
    read, write = os.pipe()
    try:
        os.write(write, b"1\n")
        with opened(path, os.O_WRONLY) as it:
            return [tried(os.splice, read, it, 100), position(it), contents(path)]
    finally:
        os.close(read)
        os.close(write)


@operation(READ_WRITE)
def write_times(path: str) -> Any:
    """A write changes no times, as the content is not that of a stored file."""
    before = os.stat(path).st_mtime_ns
    write_all((b"1\n",), 0, path)
    return os.stat(path).st_mtime_ns == before


# lseek, truncate, mmap


def seek(whence: int, offset: int, path: str) -> Any:
    with opened(path, os.O_RDONLY | os.O_DIRECTORY if os.path.isdir(path) else None) as it:
        tried(os.lseek, it, 3, os.SEEK_SET)
        return tried(os.lseek, it, offset, whence), position(it)


for title, whence in (("SET", 0), ("CUR", 1), ("END", 2), ("DATA", 3), ("HOLE", 4), ("9", 9)):
    for offset in (0, 1, -1, -4, -4096, -4097, 4096, 5000, 1 << 40, (1 << 63) - 1):
        if title in ("SET", "CUR", "END") or offset in (0, -1, 5000):
            kinds = FILES if title != "SET" or offset > 1 << 40 else (*FILES, DIRECTORY)
            operation(*kinds, name=f"lseek {title} {offset}")(
                functools.partial(seek, whence, offset)
            )


def truncate_to(length: int, path: str) -> Any:
    def by_descriptor() -> Any:
        with opened(path) as it:
            return tried(os.ftruncate, it, length)

    return tried(os.truncate, path, length), tried(by_descriptor), os.stat(path).st_size


for length in (0, 1, 4096, 10_000, 1 << 40, -1):
    operation(*FILES, DIRECTORY, name=f"truncate to {length}")(
        functools.partial(truncate_to, length)
    )

PROTECTIONS = {"read": mmap.PROT_READ, "write": mmap.PROT_WRITE, "none": 0,
               "read and write": mmap.PROT_READ | mmap.PROT_WRITE}  # fmt: skip


def map_it(flags: int, protection: int, length: int, path: str) -> Any:
    libc.mmap.restype = ctypes.c_void_p
    with opened(path) as it:
        ctypes.set_errno(0)
        address = libc.mmap(None, long(length), protection, flags, it, long(0))
        if number := ctypes.get_errno():
            return errno.errorcode[number]
        libc.munmap(ctypes.c_void_p(address), long(length))
        return "mapped"


for title, mapping in (("shared", mmap.MAP_SHARED), ("private", mmap.MAP_PRIVATE)):
    for protection, bits in PROTECTIONS.items():
        operation(*FILES, DIRECTORY, name=f"mmap {title}, {protection}")(
            functools.partial(map_it, mapping, bits, 4096)
        )
operation(*FILES, name="mmap of nothing")(functools.partial(map_it, mmap.MAP_SHARED, 1, 0))


# poll


def events(descriptor: int, wanted: int) -> Any:
    poll = select.poll()
    poll.register(descriptor, wanted)
    return poll.poll(0) and poll.poll(0)[0][1]


@operation(*FILES, DIRECTORY)
def poll_before_and_after_reading(path: str) -> Any:
    with opened(path) as it:
        everything = select.POLLIN | select.POLLOUT | select.POLLPRI
        before = events(it, everything), events(it, select.POLLPRI), events(it, select.POLLIN)
        piece = tried(os.read, it, 1)
        after = events(it, everything), events(it, select.POLLPRI)
        tried(os.write, it, b"0")
        return before, piece, after, events(it, select.POLLPRI)


@operation(*FILES, DIRECTORY)
def select_it(path: str) -> Any:
    with opened(path) as it:
        return [bool(ready) for ready in select.select([it], [it], [it], 0)]


@operation(*FILES, DIRECTORY)
def add_to_epoll(path: str) -> Any:
    with opened(path) as it, select.epoll() as epoll:
        refused = tried(epoll.register, it, select.EPOLLIN | select.EPOLLPRI)
        return refused, [seen for _, seen in epoll.poll(0)]


# fsync, fallocate, ioctl, locks


@operation(*FILES, DIRECTORY)
def sync(path: str) -> Any:
    with opened(path) as it:
        return tried(os.fsync, it), tried(os.fdatasync, it), tried(call, "syncfs", it)


def allocate(mode: int, path: str) -> Any:
    with opened(path) as it:
        return tried(call, "fallocate", it, mode, long(0), long(4096)), os.fstat(it).st_size


for title, mode in (("plain", 0), ("KEEP_SIZE", 1), ("PUNCH_HOLE", 3), ("ZERO_RANGE", 16),
                    ("COLLAPSE_RANGE", 8), ("nonsense", 0x1000)):  # fmt: skip
    operation(*FILES, DIRECTORY, name=f"fallocate {title}")(functools.partial(allocate, mode))


@operation(*FILES, DIRECTORY)
def advise(path: str) -> Any:
    with opened(path) as it:
        return [tried(os.posix_fadvise, it, 0, 0, advice) for advice in (0, 1, 2, 3, 4, 5, 9)]


def control(request: int, path: str) -> Any:
    with opened(path) as it:
        return tried(fcntl.ioctl, it, request, bytes(64))


for title, request in (("TCGETS", 0x5401), ("FIONREAD", 0x541B), ("FIGETBSZ", 2), ("FIBMAP", 1),
                       ("FIONBIO", 0x5421), ("FS_IOC_GETFLAGS", 0x80086601), ("FICLONE", 0x40049409),
                       ("FS_IOC_GETVERSION", 0x80087601), ("FS_IOC_FIEMAP", 0xC020660B),
                       ("BLKGETSIZE64", 0x80081272), ("nonsense", 0x1234)):  # fmt: skip
    operation(*FILES, DIRECTORY, name=f"ioctl {title}")(functools.partial(control, request))


@operation(*FILES, DIRECTORY)
def flock(path: str) -> Any:
    with opened(path) as first, opened(path) as second:
        return [
            tried(fcntl.flock, first, fcntl.LOCK_SH),
            tried(fcntl.flock, second, fcntl.LOCK_SH | fcntl.LOCK_NB),
            tried(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB),
            tried(fcntl.flock, first, fcntl.LOCK_UN),
            tried(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB),
            tried(fcntl.flock, first, fcntl.LOCK_SH | fcntl.LOCK_NB),
        ]


@operation(*FILES, DIRECTORY)
def record_locks(path: str) -> Any:
    def lock(descriptor: int, command: int, kind: int) -> Any:
        request = struct.pack("hhqqi4x", kind, 0, 0, 0, 0)
        return tried(fcntl.fcntl, descriptor, command, request) if command else None

    ofd_setlk, ofd_getlk = 37, 36
    with opened(path) as first, opened(path) as second:
        return [
            lock(first, fcntl.F_SETLK, fcntl.F_RDLCK),
            lock(first, fcntl.F_SETLK, fcntl.F_WRLCK),
            lock(first, fcntl.F_SETLK, fcntl.F_UNLCK),
            lock(first, ofd_setlk, fcntl.F_RDLCK),
            lock(second, ofd_setlk, fcntl.F_WRLCK),
            lock(second, ofd_getlk, fcntl.F_RDLCK),
        ]


@operation(*FILES, DIRECTORY)
def lease(path: str) -> Any:
    with opened(path) as it:
        kinds = (fcntl.F_RDLCK, fcntl.F_UNLCK)  # F_WRLCK fails if another process has it open
        return [tried(fcntl.fcntl, it, fcntl.F_SETLEASE, kind) for kind in kinds]


# chmod, chown, utimensat, access


def seen(path: str) -> Any:
    found = os.lstat(path)
    return stat.filemode(found.st_mode), found.st_uid, found.st_gid


def change_mode(mode: int, path: str) -> Any:
    def by_descriptor() -> Any:
        with opened(path, os.O_RDONLY) as it:
            return tried(os.fchmod, it, mode ^ 0o1)

    return tried(os.chmod, path, mode), seen(path), tried(by_descriptor), seen(path)


for mode in (0, 0o400, 0o600, 0o644, 0o666, 0o755, 0o4755, 0o2755, 0o1777, 0o7777):
    operation(*FILES, DIRECTORY, name=f"chmod {mode:o}")(functools.partial(change_mode, mode))


@operation(*KINDS)
def chmod_no_follow(path: str) -> Any:
    return tried(call, "fchmodat", -100, os.fsencode(path), 0o600, 0x100), seen(path)


@operation(*FILES)
def what_the_mode_then_allows(path: str) -> Any:
    """Methods decide what works, whatever the mode is. root needs a mode bit too."""
    results = []
    for mode in (0o000, 0o200, 0o444, 0o666):
        results.append(tried(os.chmod, path, mode))
        results += [tried(open_with, access, path) for access in (0, 1, 2)]
    return results


def change_owner(uid: int, gid: int, path: str) -> Any:
    change = functools.partial(os.chown, path, uid, gid, follow_symlinks=False)
    return tried(change), seen(path)


for uid, gid in ((-1, -1), (0, 0), (NOBODY, -1), (-1, NOBODY), (NOBODY, NOBODY), (12, 34)):
    operation(*KINDS, name=f"chown {uid}:{gid}")(functools.partial(change_owner, uid, gid))


@operation(*FILES)
def chown_takes_set_uid_away(path: str) -> Any:
    return tried(os.chmod, path, 0o6755), tried(os.chown, path, 12, 34), seen(path)


def change_times(times: tuple[int, int] | None, path: str) -> Any:
    change = functools.partial(os.utime, path, follow_symlinks=False)
    result = tried(functools.partial(change, ns=times) if times else change)
    found = os.lstat(path)
    return result, times and result is None and (found.st_atime_ns, found.st_mtime_ns)


for times in (None, (1_000_000_007, 2_000_000_009), (0, 0), (5, 1 << 60)):
    operation(*KINDS, name=f"utimensat {times}")(functools.partial(change_times, times))


@operation(*KINDS)
def utimensat_of_one_time(path: str) -> Any:
    change_times((1_000_000_000, 2_000_000_000), path)
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    times = struct.pack("qqqq", 0, omit, 3, 7)
    first = tried(call, "utimensat", -100, os.fsencode(path), times, 0x100)
    found = os.lstat(path)
    times = struct.pack("qqqq", 0, now, 0, omit)
    second = tried(call, "utimensat", -100, os.fsencode(path), times, 0x100)
    later = os.lstat(path)
    return (first, second, first == 0 and (found.st_atime_ns, found.st_mtime_ns, later.st_mtime_ns),
            later.st_atime_ns > 1_000_000_000)  # fmt: skip


@operation(*KINDS)
def changes_of_attributes_set_ctime(path: str) -> Any:
    before = os.lstat(path).st_ctime_ns
    tried(functools.partial(os.chown, path, 12, 34, follow_symlinks=False))
    return os.lstat(path).st_ctime_ns > before


@operation(*KINDS)
def access_of_it(path: str) -> Any:
    return [os.access(path, mode, effective_ids=True) for mode in (0, 1, 2, 4, 5, 6, 7)]


# stat, statfs, xattr


@operation(*KINDS, name="lstat")
def lstat(path: str) -> Any:
    found = os.lstat(path)
    return (
        seen(path),
        found.st_nlink,
        found.st_size,
        found.st_blocks,
        found.st_blksize,
        found.st_rdev,
    )


@operation(*KINDS)
def stat_of_what_is_open(path: str) -> Any:
    with opened(path, os.O_PATH | os.O_NOFOLLOW) as it:
        by_name, by_descriptor = os.lstat(path), os.fstat(it)
        return by_name.st_ino == by_descriptor.st_ino, by_name.st_dev == by_descriptor.st_dev


@operation(*FILES, DIRECTORY, name="statvfs")
def file_system(path: str) -> Any:
    found = os.statvfs(path)
    return (found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
            found.f_ffree, found.f_namemax)  # fmt: skip


@operation(DIRECTORY, name="statfs: the type")
def file_system_type(path: str) -> Any:
    buffer = ctypes.create_string_buffer(120)
    call("statfs", os.fsencode(path), buffer)
    return hex(struct.unpack_from("l", buffer)[0])


for attribute in (
    "user.a",
    "trusted.a",
    "security.a",
    "system.posix_acl_access",
    "nonsense.a",
    "user.",
):

    def extended(name: str, path: str) -> Any:
        follow = functools.partial
        return [
            tried(follow(os.getxattr, path, name, follow_symlinks=False)),
            tried(follow(os.removexattr, path, name, follow_symlinks=False)),
            tried(follow(os.setxattr, path, name, b"x", follow_symlinks=False)),
            tried(follow(os.removexattr, path, name, follow_symlinks=False)),
        ]

    operation(*KINDS, name=f"xattr {attribute}")(functools.partial(extended, attribute))


@operation(*KINDS)
def listxattr(path: str) -> Any:
    return os.listxattr(path, follow_symlinks=False)


# Names


def at(name: str, path: str) -> str:
    """Return a name in the directory of a file, or in a directory."""
    return os.path.join(path if os.path.isdir(path) and not os.path.islink(path)
                        else os.path.dirname(path), name)  # fmt: skip


@operation(*KINDS)
def make_directory(path: str) -> Any:
    return [tried(os.mkdir, at("new", path)), tried(os.mkdir, path), tried(os.mkdir, at(".", path))]


@operation(*KINDS)
def remove_directory(path: str) -> Any:
    return [tried(os.rmdir, path), tried(os.rmdir, at("new", path)), tried(os.rmdir, path + "/.")]


@operation(*KINDS)
def unlink(path: str) -> Any:
    return [tried(os.unlink, path), tried(os.unlink, at("new", path)), tried(os.unlink, path + "/")]


@operation(*KINDS)
def link_it(path: str) -> Any:
    follow = functools.partial(os.link, path, at("new", path), follow_symlinks=False)
    return [tried(follow), tried(os.link, path, path), tried(os.link, path, "/dev/new")]


@operation(*KINDS)
def make_symbolic_link(path: str) -> Any:
    return [tried(os.symlink, "x", at("new", path)), tried(os.symlink, "x", path)]


@operation(*KINDS)
def make_node(path: str) -> Any:
    kinds = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, 0)
    return [tried(os.mknod, at("new", path), kind | 0o600) for kind in kinds] + [
        tried(os.mknod, path, 0o600)
    ]


@operation(*KINDS)
def rename(path: str) -> Any:
    return [
        tried(os.rename, path, at("new", path)),
        tried(os.rename, path, path),
        tried(os.rename, at("new", path), path),
        tried(os.rename, path, os.path.dirname(path)),
        tried(os.rename, path, "/dev/new"),
    ]


@operation(*KINDS)
def rename_with_flags(path: str) -> Any:
    def renameat2(flags: int, new: str) -> int:
        names = os.fsencode(path), os.fsencode(new)
        return call("renameat2", -100, names[0], -100, names[1], flags)

    flags = {"NOREPLACE": 1, "EXCHANGE": 2, "WHITEOUT": 4, "nonsense": 64}
    return [tried(renameat2, bits, at("new", path)) for bits in flags.values()] + [
        tried(renameat2, bits, path) for bits in flags.values()
    ]


@operation(*KINDS)
def names_of_256_bytes(path: str) -> Any:
    name = at("x" * 256, path)
    return [tried(os.stat, name), tried(os.mkdir, name), tried(open_with, os.O_CREAT | 1, name)]


@operation(DIRECTORY, name="bind a socket in it")
def bind(path: str) -> Any:
    with socket.socket(socket.AF_UNIX) as it:
        return tried(it.bind, os.path.join(path, "s"))


@operation(*KINDS, name="readlink")
def read_link(path: str) -> Any:
    target = tried(os.readlink, path)
    if not os.path.islink(path):
        return target
    # The shortest form: the directory of a link and its target have no name in common.
    here = os.path.dirname(path)
    return target == os.path.relpath(os.path.join(here, target), here), os.path.exists(path)


@operation(LINK)
def readlink_into_a_small_buffer(path: str) -> Any:
    buffer = ctypes.create_string_buffer(8)
    return call("readlink", os.fsencode(path), buffer, long(4)), buffer.value[:3]


# Directories


class Entry(NamedTuple):
    name: str
    ino: int
    kind: int
    offset: int


def entries(descriptor: int, size: int = 4096) -> list[Entry]:
    """Call getdents64(2) once. Raise OSError."""
    buffer = ctypes.create_string_buffer(size)
    end = call("syscall", long(217), long(descriptor), buffer, long(size))
    found, start = [], 0
    while start < end:
        ino, offset, length, kind = struct.unpack_from("<QqHB", buffer, start)
        name = buffer.raw[start + 19 : start + length].split(b"\0")[0]
        found.append(Entry(os.fsdecode(name), ino, kind, offset))
        start += length
    return found


def listing(descriptor: int, size: int = 4096) -> list[Entry]:
    found: list[Entry] = []
    while piece := entries(descriptor, size):
        found += piece
    return found


@operation(DIRECTORY)
def getdents(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        found = listing(it)
        os.lseek(it, 0, os.SEEK_SET)
        again = listing(it, 64)  # a few at a time
        names = [entry.name for entry in found]
        details = [os.lstat(os.path.join(path, name)) for name in names]
        return {
            "first": names[:2],
            "the same again": found == again,
            "each once": len(names) == len(set(names)),
            "as os.listdir": set(names[2:]) == set(os.listdir(path)),
            "types": all(e.kind == d.st_mode >> 12 for e, d in zip(found, details, strict=True)),
            "numbers": all(e.ino == d.st_ino for e, d in zip(found, details, strict=True)),
            "offsets": all(
                one.offset < two.offset for one, two in zip(found, found[1:], strict=False)
            ),
            "at the end": tried(entries, it),
        }


@operation(DIRECTORY)
def a_place_in_a_listing(path: str) -> Any:
    with opened(path, os.O_RDONLY) as it:
        found = listing(it)
        rest = []
        for index, entry in enumerate(found):
            os.lseek(it, entry.offset, os.SEEK_SET)
            rest.append(listing(it) == found[index + 1 :])
        return rest[:2], all(rest)


@operation(*KINDS)
def getdents_of_anything(path: str) -> Any:
    with opened(path) as it:
        return tried(entries, it, 10) if os.path.isdir(path) else tried(entries, it)


# inotify


class Watch:
    """An inotify watch of one path."""

    MASK = 0xFFF

    def __init__(self, path: str) -> None:
        self.descriptor = call("inotify_init1", os.O_NONBLOCK)
        self.number = call("inotify_add_watch", self.descriptor, os.fsencode(path), self.MASK)

    def events(self) -> list[str]:
        """Return the events since the last call, each with its name in the directory."""
        found = []
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.descriptor, 65536)
            while data:
                _watch, mask, _cookie, length = struct.unpack_from("iIII", data)
                name = data[16 : 16 + length].split(b"\0")[0].decode()
                found.append(f"{mask:#x} {name}".strip())
                data = data[16 + length :]
        return found

    def close(self) -> None:
        os.close(self.descriptor)


@operation(*FILES, DIRECTORY)
def inotify(path: str) -> Any:
    watch = Watch(path)
    try:
        with opened(path) as it:
            tried(os.read, it, 1)
            tried(os.write, it, b"0\n")
            seen_by_use = watch.events()
        closed = watch.events()
        tried(os.chmod, path, os.stat(path).st_mode & 0o777)
        tried(os.truncate, path, 0)
        return seen_by_use, closed, watch.events()
    finally:
        watch.close()


@operation(*FILES)
def inotify_of_the_directory(path: str) -> Any:
    watch = Watch(os.path.dirname(path))
    try:
        with opened(path) as it:
            tried(os.read, it, 1)
        return [event.replace(os.path.basename(path), "NAME") for event in watch.events()]
    finally:
        watch.close()
