# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without CONFIG_LIVEPATCH: the empty functions of include/linux/livepatch.h."""

from __future__ import annotations

import errno

from klpfs.machine.structs import Struct


class LivepatchOff:
    """Stands in for `core.Livepatch`: modules come and go, and nothing happens."""

    async def module_coming(self, module: Struct) -> None:
        """``klp_module_coming``."""

    async def module_going(self, module: Struct) -> None:
        """``klp_module_going``."""

    def find_symbol(self, module: str | None, name: str, sympos: int) -> int:
        """Not asked for: a module with such relocations is refused."""
        raise OSError(errno.ENOSYS, "there is no live patching")
