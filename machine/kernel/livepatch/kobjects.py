# SPDX-License-Identifier: GPL-2.0-or-later
"""The kobjects that are members of ``klp_patch``, ``klp_object`` and ``klp_func``: the directories below
/sys/kernel/livepatch. lib/kobject.c, fs/sysfs/dir.c."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.kobject import KobjAttribute, Kobject
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from klpfs.machine.structs import Struct


class KlpKobjects:
    """The kobject of each struct that has one, by its address. ``root``: ``klp_root_kobj``."""

    def __init__(self, base: Base, root: Kobject) -> None:
        self._printk = base.printk
        self._bugs = base.bugs
        self._dumpstack = base.dumpstack
        self._root = root
        self._kobjects: dict[int, Kobject] = {}

    def __contains__(self, struct: Struct) -> bool:
        return struct.address_ in self._kobjects

    def kobject_add(
        self,
        struct: Struct,
        parent: Struct | None,
        name: str,
        attributes: Sequence[KobjAttribute] = (),
    ) -> None:
        """Add the kobject of ``struct`` below that of ``parent`` (None: the root). Raises OSError (EEXIST,
        EINVAL), after log lines."""
        directory = self._root if parent is None else self._kobjects[parent.address_]
        if not name:
            self._bugs.warn(
                "lib/kobject.c", 210, "kobject_add_internal",
                "kobject: ((____ptrval____)): attempted to be registered with empty name!",
            )  # fmt: skip
            raise OSError(errno.EINVAL, "no name")
        try:
            self._kobjects[struct.address_] = directory.add(Kobject(name, attributes))
        except OSError as error:
            self._report(error, directory, name)
            raise

    def _report(self, error: OSError, directory: Kobject, name: str) -> None:
        if error.errno != errno.EEXIST:
            self._printk(
                LOGLEVEL_ERR,
                f"kobject_add_internal failed for {name} (error: {-(error.errno or 0)} parent: "
                f"{directory.name})",
            )
            return
        path = "/".join((*directory.path, name))
        self._printk(LOGLEVEL_WARNING, f"sysfs: cannot create duplicate filename '/{path}'")
        self._dumpstack.dump_stack()
        self._printk(
            LOGLEVEL_ERR,
            f"kobject_add_internal failed for {name} with -EEXIST, don't try to "
            "register things with the same name in the same directory.",
        )

    def kobject_put(self, struct: Struct) -> None:
        """Remove the kobject of ``struct``, if it has been added. The kernel then calls
        ``klp_kobj_release_patch``, ``klp_kobj_release_object`` or ``klp_kobj_release_func``; here the caller
        (`free.PatchFree`) does what those do."""
        kobject = self._kobjects.pop(struct.address_, None)
        if kobject is not None:
            kobject.delete()
