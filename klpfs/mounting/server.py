# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind a mount: it serves a tree until the mount ends."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import select
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import trio

from klpfs.fs import fuse
from klpfs.fs.nodes import Root
from klpfs.mounting import termination
from klpfs.mounting.mounts import MountError, mount_at, socket_name

log = logging.getLogger(__name__)

_M_MMAP_THRESHOLD, _LARGE = -3, 128 << 10
"""mallopt(3) parameter: blocks of this many bytes get their own pages, which free(3) returns."""

_NAME_TIMEOUT = 1.0
"""Seconds to wait for a previous daemon to give up the socket name."""
_NAME_RETRY = 0.01

MakeTree = Callable[[], AbstractAsyncContextManager[Root]]
"""A function that returns a context manager (see `contextlib.asynccontextmanager`).

Its value is the tree; on exit it shuts the machine down. It holds the nursery of the tasks that live
as long as the mount.
"""


def run(make_tree: MakeTree, path: str, allow_other: bool, on_mounted: Callable[[], None]) -> None:
    """Mount a tree on ``path``, call ``on_mounted``, and serve until the unmount, SIGTERM or SIGINT.

    Raise `MountError` if it cannot be mounted.
    """
    # libfuse allocates a megabyte for each request in progress. By default, malloc(3) would take them
    # from the heap once some were freed, and the heap would never shrink.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mounted = False

    def note_mounted() -> None:
        nonlocal mounted
        mounted = True
        on_mounted()

    try:
        with termination.handled(path) as ending:
            trio.run(_serve, make_tree, path, allow_other, note_mounted, ending)
    except MountError:
        raise
    except Exception as error:
        if mounted:
            raise
        raise MountError(message_of(error)) from error


async def _serve(
    make_tree: MakeTree,
    path: str,
    allow_other: bool,
    on_mounted: Callable[[], None],
    ending: termination.Termination,
) -> None:
    signalled = trio.Event()
    ending.notify(trio.lowlevel.current_trio_token(), signalled)
    async with make_tree() as root:
        with captured_stderr() as read_stderr:
            try:
                system = fuse.mount(root, path, allow_other)
            except RuntimeError as error:
                message = explain_refusal(path, read_stderr()) or str(error)
                raise MountError(message) from None
        mount = mount_at(path)
        ending.note_mounted(mount)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_on_signal, signalled, system.settle, nursery)
                nursery.start_soon(end_with_connection, fuse_descriptor(), nursery)
                nursery.start_soon(end_tree, root)
                if mount is not None:
                    await nursery.start(listen_on_name, socket_name(mount))
                on_mounted()
                await fuse.serve(system)
                nursery.cancel_scope.cancel()
        finally:
            # After an unmount, something else may be mounted there already.
            still_mounted = mount is not None and mount_at(path) == mount
            fuse.unmount(system, detach=still_mounted)


async def end_on_signal(
    signalled: trio.Event, settle: Callable[[], Awaitable[None]], nursery: trio.Nursery
) -> None:
    """Cancel the nursery at the first signal."""
    await signalled.wait()
    # Not while the thread that invalidates the kernel's caches is at work: it may wait for a process
    # that waits for our answer, and would wait for ever.
    await settle()
    nursery.cancel_scope.cancel()


async def end_tree(root: Root) -> None:
    """Call ``root.end()`` when cancelled: operations that are shielded from the cancellation end."""
    try:
        await trio.sleep_forever()
    finally:
        root.end()


async def end_with_connection(descriptor: int, nursery: trio.Nursery) -> None:
    """Cancel the nursery when the kernel closes the connection, even if all requests are blocked.

    pyfuse3 waits for the descriptor itself. An epoll set that contains it, and asks for no event but
    errors, becomes readable when the connection is closed.
    """
    with select.epoll() as errors:
        errors.register(descriptor, 0)
        await trio.lowlevel.wait_readable(errors.fileno())
    nursery.cancel_scope.cancel()


def fuse_descriptor() -> int:
    """Return the descriptor of /dev/fuse that libfuse has opened."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    raise MountError("libfuse has mounted, but /dev/fuse is not open")


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Capture what is written to file descriptor 2, where libfuse and fusermount3 report errors.

    The value is a function that returns the text so far.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with os.fdopen(os.memfd_create("stderr"), "rb") as captured:

        def text() -> str:
            captured.seek(0)
            return captured.read().decode(errors="replace").strip()

        os.dup2(captured.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def explain_refusal(path: str, output: str) -> str:
    """Return why libfuse could not mount on ``path``, by its output, and what to do about it.

    Return "" if the output says nothing.
    """
    reason = re.sub(r"^(fuse|fusermount3): (mount failed: )?", "", output.split("\n")[0])
    if not reason:
        return ""
    message = f"cannot mount on {path}: {reason}"
    if "user_allow_other" in reason:
        return message
    if "ermission denied" in reason or "not permitted" in reason:
        if "/dev/fuse" in reason:
            return f"{message}; you need read and write access to /dev/fuse"
        if os.geteuid() == 0:
            return f"{message}; a container needs the capability SYS_ADMIN"
        return f"{message}; choose a directory that belongs to you"
    return message


async def listen_on_name(
    name: bytes, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Listen on an abstract socket, by whose peer credentials a client learns our process id."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with trio.move_on_after(_NAME_TIMEOUT) as scope:
            while True:
                try:
                    await listener.bind(name)
                    break
                except OSError:  # the previous daemon with this device number has not ended yet
                    await trio.sleep(_NAME_RETRY)
        if scope.cancelled_caught:
            log.warning("the name of this daemon's socket is taken: klpfs umount will not find it")
            task_status.started()
            return
        listener.listen()
        task_status.started()
        while True:
            connection, _ = await listener.accept()
            connection.close()


def message_of(error: BaseException) -> str:
    """Return the text of an exception; of a group, the text of its first exception."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
