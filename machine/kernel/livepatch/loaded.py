# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of an object only when it is loaded: relocations, addresses and sizes.
kernel/livepatch/core.c."""

from __future__ import annotations

from typing import Protocol

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.objects import klp_for_each_func, klp_is_module, object_name
from klpfs.machine.kernel.livepatch.symbols import Symbols
from klpfs.machine.kernel.module.main import Modules
from klpfs.machine.structs import Struct


class LoadedObjects(Protocol):
    """Completes objects. `older.loaded.OldLoadedObjects` is for Linux 4.0."""

    def klp_init_object_loaded(self, patch: Struct, obj: Struct) -> None:
        """Apply the relocations of a patch for an object, and find its functions. Raises OSError, after a log
        line."""


class SectionLoadedObjects:
    """Relocations are sections of the patch module; functions are found by name and ``old_sympos``."""

    def __init__(self, common: Common, *, symbols: Symbols, modules: Modules) -> None:
        self._space = common.space
        self._symbols = symbols
        self._modules = modules

    def klp_init_object_loaded(self, patch: Struct, obj: Struct) -> None:
        symbols = self._symbols
        objname = object_name(obj) if klp_is_module(obj) else None
        if objname is not None:
            self._modules.klp_apply_object_relocs(int(patch.mod), objname)
        for func in klp_for_each_func(self._space, obj):
            name = func.old_name.string()
            func.old_func = symbols.klp_find_object_symbol(objname, name, func.old_sympos)
            func.old_size = symbols.lookup_size(func.old_func, f"'{name}'")
            if func.nop:
                func.new_func = func.old_func
            func.new_size = symbols.lookup_size(func.new_func, f"'{name}' replacement")
