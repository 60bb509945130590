# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without CONFIG_LIVEPATCH: the empty functions of include/linux/livepatch.h."""

from __future__ import annotations

import errno

from klpfs.machine.structs import Struct


class LivepatchOff:
    """Replaces `build.Livepatch` for the module loader. See `module.livepatch.LivepatchHooks`."""

    async def module_coming(self, module: Struct) -> None:
        """``klp_module_coming``: do nothing."""

    async def module_going(self, module: Struct) -> None:
        """``klp_module_going``: do nothing."""

    def klp_find_object_symbol(self, objname: str | None, name: str, sympos: int) -> int:
        """Raise OSError(ENOSYS). The loader refuses modules with livepatch relocations before it asks."""
        raise OSError(errno.ENOSYS, "no live patching")
