# SPDX-License-Identifier: GPL-2.0-or-later
"""The host kernel's references to the tree, and the invalidation of its caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from klpfs.fs.nodes import ROOT_INO, Node

SETTLE_TIMEOUT = 1.0
"""Seconds that an answer waits for the kernel to forget the names that the operation removed."""

Stale = tuple[int, str | None]
"""An inode number, and a name in that directory, or None for the attributes of the inode."""


class InodeTable:
    """The nodes that the kernel knows, by inode number, with the count of its lookups."""

    def __init__(self, root: Node) -> None:
        self._nodes: dict[int, Node] = {ROOT_INO: root}
        self._lookups: dict[int, int] = {ROOT_INO: 1}

    def __contains__(self, ino: int) -> bool:
        return ino in self._nodes

    def get(self, ino: int) -> Node | None:
        """Return the node with an inode number, or None if the kernel does not know it."""
        return self._nodes.get(ino)

    def add_lookup(self, node: Node) -> None:
        """Count one more reference of the kernel to ``node``."""
        self._nodes[node.ino] = node
        self._lookups[node.ino] = self._lookups.get(node.ino, 0) + 1

    def forget(self, ino: int, count: int) -> None:
        """Drop ``count`` references of the kernel, and the node if these were the last."""
        left = self._lookups.get(ino, 0) - count
        if left > 0:
            self._lookups[ino] = left
        elif ino != ROOT_INO:
            self._lookups.pop(ino, None)
            self._nodes.pop(ino, None)


class Invalidations:
    """A queue of names and attributes that the kernel must forget.

    ``send`` passes them to the kernel. It runs in a thread, because the kernel takes the lock of the
    directory, whose holder may wait for one of our answers.
    """

    def __init__(self, send: Callable[[Sequence[Stale]], None]) -> None:
        self._send = send
        self._stale: dict[Stale, None] = {}
        self._work = trio.Event()
        self._settled: trio.Event | None = None

    def add(self, ino: int, name: str | None) -> None:
        """Invalidate the entry ``name`` of a directory, or, for None, the attributes of an inode."""
        self._stale[ino, name] = None
        if self._settled is None:
            self._settled = trio.Event()
            self._work.set()

    async def run(self) -> None:
        """Send invalidations until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._stale:
                stale, self._stale = list(self._stale), {}
                await trio.to_thread.run_sync(self._send, stale, abandon_on_cancel=True)
            settled, self._settled = self._settled, None
            if settled is not None:
                settled.set()

    async def settle(self) -> None:
        """Wait until the queue is empty, but no longer than `SETTLE_TIMEOUT`.

        Without the timeout there is a deadlock: unlink(2) holds the lock of the directory while it waits
        for the lock of the file, which a process that writes to the file holds until we answer.
        """
        if self._settled is not None:
            with trio.move_on_after(SETTLE_TIMEOUT):
                await self._settled.wait()
