# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches, their objects and functions, and the list of patches, as they are in guest memory.
include/linux/livepatch.h, kernel/livepatch/core.h."""

from __future__ import annotations

from collections.abc import Iterator

from klpfs.machine import limits
from klpfs.machine.computer import Computer
from klpfs.machine.structs import Space, Struct

# -- struct klp_patch, struct klp_object, struct klp_func -----------------------------------------


def klp_for_each_object_static(patch: Struct) -> Iterator[Struct]:
    """Yield the objects of the array that a patch was compiled with. Raises limits.ListTooLong."""
    for i in range(limits.LIST):
        obj = patch.objs[i]
        if not obj.funcs and not obj.name:
            return
        yield obj
    raise limits.ListTooLong("the objects of a patch")


def klp_for_each_func_static(obj: Struct) -> Iterator[Struct]:
    """Yield the functions of the array that an object was compiled with. Raises limits.ListTooLong."""
    for i in range(limits.LIST):
        func = obj.funcs[i]
        if not (func.old_name or func.new_func or func.old_sympos):
            return
        yield func
    raise limits.ListTooLong("the functions of a patch")


def klp_for_each_object(space: Space, patch: Struct) -> Iterator[Struct]:
    """Yield the objects of a patch, dynamic ones included. The caller may unlink the current one."""
    return space.list_entries(patch.member_address_("obj_list"), "struct klp_object", "node")


def klp_for_each_func(space: Space, obj: Struct) -> Iterator[Struct]:
    """Yield the functions of an object, nops included. The caller may unlink the current one."""
    return space.list_entries(obj.member_address_("func_list"), "struct klp_func", "node")


def klp_is_module(obj: Struct) -> bool:
    """Return whether an object is a module; otherwise it is vmlinux."""
    return bool(obj.name)


def klp_is_object_loaded(obj: Struct) -> bool:
    """Return whether an object is in memory: vmlinux, or a module that is loaded."""
    return bool(obj.mod) or not obj.name


def klp_find_module_object(space: Space, patch: Struct, module: str) -> Struct | None:
    """Return the object of a patch for the module ``module``, or None."""
    for obj in klp_for_each_object(space, patch):
        if klp_is_module(obj) and object_name(obj) == module:
            return obj
    return None


def object_name(obj: Struct) -> str:
    """Return the name of an object: that of the module, or ``vmlinux``."""
    return obj.name.string() if obj.name else "vmlinux"


def patch_name(patch: Struct) -> str:
    """Return the name of a patch: that of the module that it is in."""
    name: str = patch.mod.name.string()
    return name


def klp_init_object_early(space: Space, patch: Struct, obj: Struct) -> None:
    """Put an object without functions on the list of a patch."""
    space.init_list_head(obj.member_address_("func_list"))
    space.list_add_tail(obj.member_address_("node"), patch.member_address_("obj_list"))


def klp_init_func_early(space: Space, obj: Struct, func: Struct) -> None:
    """Put a function on the list of an object."""
    space.list_add_tail(func.member_address_("node"), obj.member_address_("func_list"))


# -- struct list_head klp_patches -----------------------------------------------------------------


class Patches:
    """``klp_patches``: the installed patches, the oldest first. See `core` and `older.registered`."""

    def __init__(self, computer: Computer) -> None:
        self._space = computer.space
        self._head = computer.symbol("klp_patches")
        self._space.init_list_head(self._head)

    def __iter__(self) -> Iterator[Struct]:
        """``klp_for_each_patch``. The caller may unlink the current one."""
        return self._space.list_entries(self._head, "struct klp_patch", "list")

    def before(self, patch: Struct | None) -> Iterator[Struct]:
        """Yield the patches that are older than ``patch``; all of them if it is None or not installed."""
        for older in self:
            if older == patch:
                return
            yield older

    def add(self, patch: Struct) -> None:
        """Install a patch: it becomes the newest."""
        self._space.list_add_tail(patch.member_address_("list"), self._head)

    def discard(self, patch: Struct) -> None:
        """Take a patch off the list, if it is on it. Its list head must have been initialized."""
        if not self._space.list_empty(patch.member_address_("list")):
            self._space.list_del(patch.member_address_("list"))
