# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's linked lists: include/linux/list.h and include/linux/rculist.h."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from klpfs.machine import limits
from klpfs.machine.structs.space import TypedMemory
from klpfs.machine.structs.views import View, address_of

# include/linux/poison.h with x86-64's CONFIG_ILLEGAL_POINTER_VALUE
LIST_POISON1 = 0xDEAD000000000100
LIST_POISON2 = 0xDEAD000000000122


class Space(TypedMemory):
    """Typed access to a memory, with the functions of the kernel's lists.

    Entries and heads are given as the address of their ``struct list_head`` (or hlist), or as a
    view of it. Lists have at most `klpfs.machine.limits.LIST` entries.
    """

    # -- struct list_head -------------------------------------------------------------------------

    def init_list_head(self, head: int | View) -> None:
        """Make ``head`` an empty list (``INIT_LIST_HEAD``)."""
        at = address_of(head)
        self.write_u64(at, at)
        self.write_u64(at + 8, at)

    def list_empty(self, head: int | View) -> bool:
        """Return whether a list has no entry."""
        at = address_of(head)
        return self.read_u64(at) == at

    def list_is_singular(self, head: int | View) -> bool:
        """Return whether a list has exactly one entry."""
        at = address_of(head)
        following = self.read_u64(at)
        return following != at and following == self.read_u64(at + 8)

    def _list_insert(self, new: int, prev: int, following: int) -> None:
        # In the order of list_add_rcu: a reader sees the list without the entry, or with it.
        self.write_u64(new, following)
        self.write_u64(new + 8, prev)
        self.write_u64(prev, new)
        self.write_u64(following + 8, new)

    def list_add(self, new: int | View, head: int | View) -> None:
        """Insert ``new`` at the front."""
        at = address_of(head)
        self._list_insert(address_of(new), at, self.read_u64(at))

    def list_add_tail(self, new: int | View, head: int | View) -> None:
        """Insert ``new`` at the end."""
        at = address_of(head)
        self._list_insert(address_of(new), self.read_u64(at + 8), at)

    def _list_unlink(self, at: int) -> None:
        following, prev = self.read_u64(at), self.read_u64(at + 8)
        self.write_u64(following + 8, prev)
        self.write_u64(prev, following)

    def list_del(self, entry: int | View) -> None:
        """Remove an entry from its list and poison its pointers."""
        at = address_of(entry)
        self._list_unlink(at)
        self.write_u64(at, LIST_POISON1)
        self.write_u64(at + 8, LIST_POISON2)

    def list_del_rcu(self, entry: int | View) -> None:
        """Remove an entry from its list, but keep its ``next`` for readers that are at it."""
        at = address_of(entry)
        self._list_unlink(at)
        self.write_u64(at + 8, LIST_POISON2)

    def list_del_init(self, entry: int | View) -> None:
        """Remove an entry from its list and make it an empty list."""
        self._list_unlink(address_of(entry))
        self.init_list_head(entry)

    def list_entries(self, head: int | View, name: str, member: str) -> Iterator[Any]:
        """Yield the structs of type ``name`` that are linked through ``member``.

        The struct that was yielded last may be removed (``list_for_each_entry_safe``). Raise
        ListTooLong.
        """
        at, offset = address_of(head), self.types.offsetof(name, member)
        entry = self.read_u64(at)
        for _ in range(limits.LIST):
            if entry == at:
                return
            following = self.read_u64(entry)
            yield self.view(name, entry - offset)
            entry = following
        raise limits.ListTooLong(f"the list at {at:#x}")

    def list_first_entry(self, head: int | View, name: str, member: str) -> Any:
        """Return the first struct on a list, or None (``list_first_entry_or_null``)."""
        return next(self.list_entries(head, name, member), None)

    # -- struct hlist_head, struct hlist_node -----------------------------------------------------

    def hlist_empty(self, head: int | View) -> bool:
        """Return whether a hash bucket has no entry."""
        return not self.read_u64(address_of(head))

    def hlist_add_head(self, node: int | View, head: int | View) -> None:
        """Insert ``node`` at the front of a bucket."""
        at, bucket = address_of(node), address_of(head)
        first = self.read_u64(bucket)
        self.write_u64(at, first)
        self.write_u64(at + 8, bucket)
        self.write_u64(bucket, at)
        if first:
            self.write_u64(first + 8, at)

    def hlist_del(self, node: int | View) -> None:
        """Remove a node from its bucket and poison its pointers."""
        at = address_of(node)
        following, pprev = self.read_u64(at), self.read_u64(at + 8)
        self.write_u64(pprev, following)
        if following:
            self.write_u64(following + 8, pprev)
        self.write_u64(at, LIST_POISON1)
        self.write_u64(at + 8, LIST_POISON2)

    def hlist_entries(self, head: int | View, name: str, member: str) -> Iterator[Any]:
        """Yield the structs of type ``name`` in a bucket, linked through ``member``.

        The struct that was yielded last may be removed. Raise ListTooLong.
        """
        node, offset = self.read_u64(address_of(head)), self.types.offsetof(name, member)
        for _ in range(limits.LIST):
            if not node:
                return
            following = self.read_u64(node)
            yield self.view(name, node - offset)
            node = following
        raise limits.ListTooLong(f"the bucket at {address_of(head):#x}")
