# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel objects and their attributes: the tree that sysfs shows. lib/kobject.c, fs/sysfs/."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

Show = Callable[[], str] | Callable[[], Awaitable[str]]
Store = Callable[[bytes], Awaitable[None]]


NAME_MAX = 1024
"""Bytes. Sysfs has no limit; this is FUSE's."""


def is_file_name(name: str) -> bool:
    """Whether a file can be called so."""
    size = len(name.encode("utf-8", "surrogateescape"))
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name) and size <= NAME_MAX


class KobjAttribute(NamedTuple):
    """A file of a kobject. ``store`` gets what one write brought; both raise OSError. An ``async`` show may
    run guest code, and is called by a task; one that is not knows the answer by itself."""

    name: str
    show: Show | None = None
    store: Store | None = None
    mode: int | None = None
    """Permission bits; when None, what ``__ATTR_RO/WO/RW`` give."""
    size: int | None = None
    """Of a binary attribute, in bytes; other files have that of a page."""

    @property
    def permissions(self) -> int:
        """The permission bits of the file."""
        if self.mode is not None:
            return self.mode
        return (0o444 if self.show else 0) | (0o200 if self.store else 0)


class Kobject:
    """A directory of sysfs. It is visible from the moment its parent gets it."""

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
        """``kobject_add``. Raises OSError: EEXIST if a name is taken, EINVAL if one in it cannot be a
        file's."""
        child.check()
        if child.name in self.children:
            raise OSError(errno.EEXIST, f"cannot create duplicate filename '{child.name}'")
        self.children[child.name] = child
        child.parent = self
        child._joined(self.tree)
        return child

    def check(self) -> None:
        """Raises OSError for names in it that are none, or come twice."""
        names = [attribute.name for attribute in self.attributes]
        for name in (self.name, *names):
            if not is_file_name(name):
                raise OSError(errno.EINVAL, f"not a file name: {name!r}")
        if len({*names, *self.children}) < len(names) + len(self.children):
            raise OSError(errno.EEXIST, f"a filename comes twice in '{self.name}'")
        for child in self.children.values():
            child.check()

    def _joined(self, tree: KobjectTree | None) -> None:
        self.tree = tree
        if tree is not None:
            for listener in tree.listeners:
                listener.added(self)
        for child in self.children.values():
            child._joined(tree)

    def link(self, name: str, target: Kobject) -> None:
        """``sysfs_create_link``."""
        self.links[name] = target
        if self.tree is not None:
            for listener in self.tree.listeners:
                listener.links_changed(self)

    def unlink(self, name: str) -> None:
        """``sysfs_remove_link``; nothing if there is none."""
        if self.links.pop(name, None) is not None and self.tree is not None:
            for listener in self.tree.listeners:
                listener.links_changed(self)

    def delete(self) -> None:
        """``kobject_del``: gone with all below it; nothing if it is gone already."""
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
    """Who wants to know of changes in the tree."""

    def added(self, kobject: Kobject) -> None:
        """``kobject`` is there now."""

    def removed(self, kobject: Kobject) -> None:
        """``kobject`` is gone; its parent is still set."""

    def links_changed(self, kobject: Kobject) -> None:
        """A link in ``kobject`` came or went."""


class KobjectTree(Kobject):
    """The root of sysfs."""

    def __init__(self) -> None:
        super().__init__("")
        self.tree = self
        self.listeners: list[KobjectListener] = []

    def at(self, path: Sequence[str]) -> Kobject:
        """The object at a path from the root, made (empty) where it is missing."""
        here: Kobject = self
        for name in path:
            here = here.children.get(name) or here.add(Kobject(name))
        return here


def kstrtobool(data: bytes) -> bool:
    """``kstrtobool``, lib/kstrtox.c. Raises OSError(EINVAL)."""
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
