# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel objects and their attributes: the tree behind sysfs. lib/kobject.c, fs/sysfs/."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

Show = Callable[[], str] | Callable[[], Awaitable[str]]
Store = Callable[[bytes], Awaitable[None]]


NAME_MAX = 1024
"""Longest file name in bytes. Sysfs has no limit; this is FUSE's."""


def is_file_name(name: str) -> bool:
    """Return whether ``name`` is a valid file name."""
    size = len(name.encode("utf-8", "surrogateescape"))
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name) and size <= NAME_MAX


class KobjAttribute(NamedTuple):
    """A file of a kobject. ``store`` gets the bytes of one write. Both functions raise OSError. An
    ``async`` ``show`` may run guest code and needs a current task; a plain one must not."""

    name: str
    show: Show | None = None
    store: Store | None = None
    mode: int | None = None
    """Permission bits; None means those of ``__ATTR_RO``, ``__ATTR_WO`` or ``__ATTR_RW``."""
    size: int | None = None
    """Size of a binary attribute in bytes; None means one page, as for text attributes."""

    @property
    def permissions(self) -> int:
        """The permission bits of the file."""
        if self.mode is not None:
            return self.mode
        return (0o444 if self.show else 0) | (0o200 if self.store else 0)


class Kobject:
    """A directory of sysfs. It becomes visible when it is added to its parent."""

    def __init__(self, name: str, attributes: Iterable[KobjAttribute] = ()) -> None:
        self.name = name.replace("/", "!")  # kobject_set_name_vargs()
        self.attributes = list(attributes)
        self.children: dict[str, Kobject] = {}
        self.links: dict[str, Kobject] = {}
        self.parent: Kobject | None = None
        self.tree: KobjectTree | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """Names from the root of sysfs down to this object."""
        return (*self.parent.path, self.name) if self.parent else ()

    def add(self, child: Kobject) -> Kobject:
        """``kobject_add``. Raises OSError: EEXIST if a name is taken, EINVAL if ``child`` or a file in it
        has an invalid name."""
        child.check()
        if child.name in self.children:
            raise OSError(errno.EEXIST, f"cannot create duplicate filename '{child.name}'")
        self.children[child.name] = child
        child.parent = self
        child._notify_added(self.tree)
        return child

    def check(self) -> None:
        """Raise OSError if a name below this object is invalid (EINVAL) or not unique (EEXIST)."""
        names = [attribute.name for attribute in self.attributes]
        for name in (self.name, *names):
            if not is_file_name(name):
                raise OSError(errno.EINVAL, f"invalid file name {name!r}")
        if len({*names, *self.children}) < len(names) + len(self.children):
            raise OSError(errno.EEXIST, f"duplicate file name in '{self.name}'")
        for child in self.children.values():
            child.check()

    def _notify_added(self, tree: KobjectTree | None) -> None:
        self.tree = tree
        if tree is not None:
            for listener in tree.listeners:
                listener.added(self)
        for child in self.children.values():
            child._notify_added(tree)

    def link(self, name: str, target: Kobject) -> None:
        """``sysfs_create_link``. The name is changed as that of an object is, so that it can be looked up.
        Raises OSError(EINVAL) for an invalid name."""
        name = name.replace("/", "!")
        if not is_file_name(name):
            raise OSError(errno.EINVAL, f"invalid file name {name!r}")
        self.links[name] = target
        if self.tree is not None:
            for listener in self.tree.listeners:
                listener.links_changed(self)

    def unlink(self, name: str) -> None:
        """``sysfs_remove_link``. Does nothing if there is no such link."""
        if self.links.pop(name.replace("/", "!"), None) is not None and self.tree is not None:
            for listener in self.tree.listeners:
                listener.links_changed(self)

    def delete(self) -> None:
        """``kobject_del``: remove the object and its children. Does nothing if it was removed before."""
        if self.parent is None:
            return
        for child in list(self.children.values()):
            child.delete()
        del self.parent.children[self.name]
        if self.tree is not None:
            for listener in self.tree.listeners:
                listener.removed(self)
        self.parent = self.tree = None


class KobjectListener:
    """Callbacks for changes in the tree."""

    def added(self, kobject: Kobject) -> None:
        """Called after ``kobject`` was added."""

    def removed(self, kobject: Kobject) -> None:
        """Called after ``kobject`` was removed; its parent is still set."""

    def links_changed(self, kobject: Kobject) -> None:
        """Called after a link in ``kobject`` was added or removed."""


class KobjectTree(Kobject):
    """The root of sysfs."""

    def __init__(self) -> None:
        super().__init__("")
        self.tree = self
        self.listeners: list[KobjectListener] = []

    def at(self, path: Sequence[str]) -> Kobject:
        """Return the object at a path from the root. Missing objects are created without attributes."""
        here: Kobject = self
        for name in path:
            here = here.children.get(name) or here.add(Kobject(name))
        return here


def kstrtobool(data: bytes) -> bool:
    """Parse a boolean: ``kstrtobool``, lib/kstrtox.c. Raises OSError(EINVAL)."""
    text = data.split(b"\0")[0].decode("latin-1")
    if text[:1] and text[0] in "yY1tT":
        return True
    if text[:1] and text[0] in "nN0fF":
        return False
    if text[:1] in ("o", "O") and text[1:2]:
        if text[1] in "nN":
            return True
        if text[1] in "fF":
            return False
    raise OSError(errno.EINVAL, "not a boolean")
