# SPDX-License-Identifier: GPL-2.0-or-later
"""``sys``: kobjects as directories, and their attributes as files. fs/sysfs/."""

from __future__ import annotations

import inspect
import os

from klpfs.fs.attributes import Attribute, Show, Store
from klpfs.fs.caller import caller_task
from klpfs.fs.nodes import Caller, Directory, Symlink
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.kobject import KobjAttribute, Kobject, KobjectListener
from klpfs.machine.kernel.kobject import Show as KobjShow


class Sysfs(KobjectListener):
    """The directory ``sys``, kept up to date with the tree of kobjects."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.root = Directory(0o555)
        self._directories: dict[Kobject, Directory] = {kernel.kobjects: self.root}
        for child in kernel.kobjects.children.values():
            self._mirror(child)
        kernel.kobjects.listeners.append(self)

    def _mirror(self, kobject: Kobject) -> None:
        self.added(kobject)
        for child in kobject.children.values():
            self._mirror(child)

    def added(self, kobject: Kobject) -> None:
        assert kobject.parent is not None
        directory = Directory(0o755)
        self._directories[kobject] = directory
        for attribute in kobject.attributes:
            directory.add(attribute.name, self._file(attribute))
        self._directories[kobject.parent].add(kobject.name, directory)
        self.links_changed(kobject)

    def removed(self, kobject: Kobject) -> None:
        assert kobject.parent is not None
        del self._directories[kobject]
        self._directories[kobject.parent].remove(kobject.name)

    def links_changed(self, kobject: Kobject) -> None:
        directory = self._directories[kobject]
        for name in list(directory.entries()):
            if isinstance(directory.lookup(name), Symlink) and name not in kobject.links:
                directory.remove(name)
        for name, target in kobject.links.items():
            if directory.lookup(name) is None:
                # kernfs_get_target_path(), fs/kernfs/symlink.c: a relative path. Its size is 0.
                path = os.path.relpath("/".join(target.path), "/".join(kobject.path))
                directory.add(name, Symlink(path, size=0))

    def _file(self, attribute: KobjAttribute) -> Attribute:
        show = self._show(attribute.show) if attribute.show is not None else None
        store: Store | None = None
        if attribute.store is not None:
            store_data = attribute.store

            async def store(caller: Caller, data: bytes) -> None:
                async with caller_task(self._kernel, caller):
                    await store_data(data)

        file = Attribute(show, store, attribute.permissions & 0o777)
        file.immediate = not inspect.iscoroutinefunction(attribute.show)
        if attribute.size is not None:
            file.size = attribute.size
        return file

    def _show(self, make: KobjShow) -> Show:
        async def show(caller: Caller) -> bytes:
            text = make()
            if not isinstance(text, str):  # guest code prints it, which needs a task
                async with caller_task(self._kernel, caller):
                    text = await text
            return text.encode("utf-8", "surrogateescape")

        return show
