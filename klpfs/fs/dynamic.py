# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories whose entries are computed."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable

from klpfs.fs.nodes import Directory, Node


class DynamicDirectory(Directory, ABC):
    """A directory that computes its names, and makes the node of a name when it is looked up.

    A node, with its inode number, stays the same as long as it is referenced and its name exists.
    Nodes can also be added, as to any directory; they are listed first. Names that come and go need not
    be announced: the kernel does not cache them.
    """

    def __init__(self, mode: int = 0o555) -> None:
        super().__init__(mode)
        self._made: weakref.WeakValueDictionary[str, Node] = weakref.WeakValueDictionary()

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Return the names that exist now."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether a name exists now. Called for every lookup, so it should be fast."""

    @abstractmethod
    def make(self, name: str) -> Node:
        """Return a new node for a name that exists. A `Directory` must come with its contents."""

    def lookup(self, name: str) -> Node | None:
        if (child := super().lookup(name)) is not None:
            return child
        node = self._made.get(name)
        if self.exists(name):
            if node is None:
                node = self._made[name] = self.make(name)
                node.parent = self
            return node
        if node is not None:
            self._end_made(name, node)
        return None

    def entries(self) -> Iterable[str]:
        names = list(self.names())
        # Announce the end of nodes whose names are gone. The kernel keeps a node until then if it does
        # not look the name up again, and processes come and go without end.
        for name in set(self._made) - set(names):
            self.lookup(name)
        yield from super().entries()
        yield from names

    def _end_made(self, name: str, node: Node) -> None:
        """End a node that was made for a name, and the nodes below it."""
        del self._made[name]
        if isinstance(node, Directory):
            node.clear()
        self._end_child(name, node)
