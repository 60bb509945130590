# SPDX-License-Identifier: GPL-2.0-or-later
"""What the process behind a mount does: it serves a tree until the mount is gone."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import trio

from klpfs.fs import fuse as fusefs
from klpfs.fs.nodes import Root
from klpfs.mounting.mounts import MountError, mount_at, socket_name

log = logging.getLogger(__name__)

_M_MMAP_THRESHOLD, _LARGE = -3, 128 << 10
"""For mallopt(3): blocks of so many bytes have pages of their own, which go when they are freed."""

MakeTree = Callable[[], AbstractAsyncContextManager[Root]]
"""Gives a context manager (see `contextlib.asynccontextmanager`): entered, it is the tree; left,
the machine is shut down. Tasks that live as long as the mount belong in a nursery inside it."""


def run(
    make_tree: MakeTree, path: str, allow_other: bool, fsname: str, ready: Callable[[], None]
) -> None:
    """Serve until the mount is gone, SIGTERM or SIGINT; ``ready`` is called once it is mounted."""
    # libfuse has a megabyte for each request that is being served. The C library, left to itself, has them
    # on its heap as soon as some were freed, and the heap stays as large as it ever was.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    started = False

    def on_ready() -> None:
        nonlocal started
        started = True
        ready()

    try:
        trio.run(_serve, make_tree, path, allow_other, fsname, on_ready)
    except MountError:
        raise
    except Exception as error:
        if started:
            raise
        raise MountError(explain(error)) from error


async def _serve(
    make_tree: MakeTree, path: str, allow_other: bool, fsname: str, ready: Callable[[], None]
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with make_tree() as root:
            with captured_stderr() as complaint:
                try:
                    system = fusefs.mount(root, path, fsname, allow_other)
                except RuntimeError as error:
                    raise MountError(refusal(path, complaint()) or str(error)) from None
            mount = mount_at(path)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(end_on_signal, signals, system.settle, nursery)
                    nursery.start_soon(end_with_connection, connection_descriptor(), nursery)
                    nursery.start_soon(end_tree, root)
                    if mount is not None:
                        await nursery.start(answer_to_name, socket_name(mount))
                    ready()
                    await fusefs.serve(system)
                    nursery.cancel_scope.cancel()
            finally:
                # Whoever unmounted us may have mounted something else there already.
                ours = mount is not None and mount_at(path) == mount
                fusefs.unmount(system, detach=ours)


async def end_on_signal(
    signals: AsyncIterator[int], settle: Callable[[], Awaitable[None]], nursery: trio.Nursery
) -> None:
    async for _ in signals:
        # The thread that tells the kernel of changes must not be in the middle of it: it may wait
        # for somebody who waits for us, and nothing would ever end that wait.
        await settle()
        nursery.cancel_scope.cancel()


async def end_tree(root: Root) -> None:
    """Tell the tree when the mount ends, for its operations may hold out against being cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        root.end()


async def end_with_connection(descriptor: int, nursery: trio.Nursery) -> None:
    """End when the kernel has ended the connection, even while all requests are blocked.

    The descriptor itself is pyfuse3's to wait for; an epoll set that asks for nothing but errors
    becomes readable when there is one.
    """
    with select.epoll() as errors:
        errors.register(descriptor, 0)
        await trio.lowlevel.wait_readable(errors.fileno())
    nursery.cancel_scope.cancel()


def connection_descriptor() -> int:
    """The descriptor of /dev/fuse that libfuse has opened."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    raise MountError("libfuse has mounted, but has no /dev/fuse open")


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """libfuse and fusermount3 say on file descriptor 2 why they refuse: gives what they said."""
    sys.stderr.flush()
    saved = os.dup(2)
    with os.fdopen(os.memfd_create("stderr"), "rb") as said:

        def text() -> str:
            said.seek(0)
            return said.read().decode(errors="replace").strip()

        os.dup2(said.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def refusal(path: str, complaint: str) -> str:
    """What libfuse says of a mount that it could not make, and what to do about it."""
    reason = re.sub(r"^(fuse|fusermount3): (mount failed: )?", "", complaint.split("\n")[0])
    if not reason:
        return ""
    sentence = f"cannot mount on {path}: {reason}"
    if "user_allow_other" in reason:
        return sentence
    if "ermission denied" in reason or "not permitted" in reason:
        if "/dev/fuse" in reason:
            return f"{sentence}; you need read and write access to /dev/fuse"
        if os.geteuid() == 0:
            return f"{sentence}; in a container, it needs the capability SYS_ADMIN"
        return f"{sentence}; choose a directory of your own"
    return sentence


async def answer_to_name(
    name: bytes, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Make this process known by a name; who connects learns its process id from the kernel."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with trio.move_on_after(1) as scope:
            while True:
                try:
                    await listener.bind(name)
                    break
                except OSError:  # the daemon that had this device number before is just ending
                    await trio.sleep(0.01)
        if scope.cancelled_caught:
            log.warning("klpfs umount will not find this daemon: its name is taken")
            task_status.started()
            return
        listener.listen()
        task_status.started()
        while True:
            connection, _ = await listener.accept()
            connection.close()


def explain(error: BaseException) -> str:
    """The text of an exception, for the user; of a group, that of the first one in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
