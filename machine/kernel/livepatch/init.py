# SPDX-License-Identifier: GPL-2.0-or-later
"""Initializing a patch: its lists, its directories, and its objects that are loaded.
kernel/livepatch/core.c."""

from __future__ import annotations

import errno

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.kobjects import KlpKobjects
from klpfs.machine.kernel.livepatch.loaded import LoadedObjects
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func,
    klp_for_each_func_static,
    klp_for_each_object,
    klp_for_each_object_static,
    klp_init_func_early,
    klp_init_object_early,
    klp_is_module,
    klp_is_object_loaded,
    object_name,
    patch_name,
)
from klpfs.machine.kernel.livepatch.replace import AtomicReplace
from klpfs.machine.kernel.livepatch.sysfs import Attributes, EnabledStore
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.structs import Struct

MODULE_NAME_LEN, KSYM_NAME_LEN = 56, 512


class PatchInit:
    """Makes a patch ready to be enabled. The caller holds klp_mutex."""

    def __init__(
        self,
        common: Common,
        *,
        kobjects: KlpKobjects,
        attributes: Attributes,
        loaded: LoadedObjects,
        replace: AtomicReplace,
        modules: Modules,
    ) -> None:
        self._space = common.space
        self._patches = common.patches
        self._kobjects = kobjects
        self._attributes = attributes
        self._loaded = loaded
        self._replace = replace
        self._modules = modules
        self._abi = common.abi

    def is_initialized(self, patch: Struct) -> bool:
        """Return whether a patch is installed already."""
        return patch in self._kobjects

    def klp_init_patch_early(self, patch: Struct) -> None:
        """Initialize the lists of a patch. Freeing it needs nothing else."""
        space = self._space
        space.init_list_head(patch.member_address_("list"))
        space.init_list_head(patch.member_address_("obj_list"))
        patch.enabled = patch.forced = False
        for obj in klp_for_each_object_static(patch):
            klp_init_object_early(space, patch, obj)
            for func in klp_for_each_func_static(obj):
                klp_init_func_early(space, obj, func)

    def klp_init_patch(self, patch: Struct, enabled_store: EnabledStore) -> None:
        """Create the directories of a patch, complete its objects, and install it. Raises OSError,
        MemoryError; then the caller frees what has been initialized."""
        attributes = self._attributes.klp_patch_attrs(patch, enabled_store)
        self._kobjects.kobject_add(patch, None, patch_name(patch), attributes)
        if patch.replace:
            self._replace.klp_add_nops(patch)
        for obj in klp_for_each_object(self._space, patch):
            self.klp_init_object(patch, obj)
        self._patches.add(patch)

    def klp_init_object(self, patch: Struct, obj: Struct) -> None:
        """Create the directories of an object, and complete it if it is loaded. Raises OSError."""
        name = object_name(obj)
        if klp_is_module(obj) and len(name) >= MODULE_NAME_LEN:
            raise OSError(errno.EINVAL, "module name too long")
        obj.patched = False
        obj.mod = 0
        self.klp_find_object_module(obj)
        files = self._attributes.klp_object_attrs(obj)
        self._kobjects.kobject_add(obj, patch, name, files)
        for func in klp_for_each_func(self._space, obj):
            self.klp_init_func(obj, func)
        if klp_is_object_loaded(obj):
            self._loaded.klp_init_object_loaded(patch, obj)

    def klp_find_object_module(self, obj: Struct) -> None:
        """Set ``obj->mod`` if the module is loaded, and neither coming nor going."""
        if klp_is_module(obj):
            module = self._modules.struct_of(object_name(obj))
            if module is not None and module.klp_alive:
                obj.mod = module

    def klp_init_func(self, obj: Struct, func: Struct) -> None:
        """Create the directory of a function. Raises OSError."""
        if not func.old_name or (not func.new_func and not func.nop):
            raise OSError(errno.EINVAL, "function without a name or a replacement")
        name = func.old_name.string()
        if len(name) >= KSYM_NAME_LEN:
            raise OSError(errno.EINVAL, "function name too long")
        self._space.init_list_head(func.member_address_("stack_node"))
        func.patched = func.transition = False
        directory = self._abi.function_directory.format(name=name, sympos=func.old_sympos or 1)
        self._kobjects.kobject_add(func, obj, directory)
