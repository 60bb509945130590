# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface between the module loader and the livepatch core, seen from the loader.
include/linux/livepatch.h."""

from __future__ import annotations

from typing import Protocol

from klpfs.machine.structs import Struct


class LivepatchHooks(Protocol):
    """The calls that the module loader makes."""

    async def module_coming(self, module: Struct) -> None:
        """``klp_module_coming``: patch a module (a ``struct module``) before its init runs. Raises OSError if
        the module must not be loaded."""

    async def module_going(self, module: Struct) -> None:
        """``klp_module_going``: revert the patches of a module. Paired with a `module_coming` that
        succeeded."""

    def klp_find_object_symbol(self, objname: str | None, name: str, sympos: int) -> int:
        """``klp_find_object_symbol``: return the address of the ``sympos``-th symbol ``name`` of an object
        (None: vmlinux); with 0 it must be the only one. Raises OSError(EINVAL), after a log line."""
