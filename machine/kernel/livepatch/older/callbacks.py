# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects without callbacks, as before Linux 4.15."""

from __future__ import annotations

from klpfs.machine.structs import Struct


class NoCallbacks:
    """Does nothing. Replaces `livepatch.callbacks.ObjectCallbacks`."""

    async def klp_pre_patch_callback(self, obj: Struct) -> int:
        return 0

    async def klp_post_patch_callback(self, obj: Struct) -> None:
        return

    async def klp_pre_unpatch_callback(self, obj: Struct) -> None:
        return

    async def klp_post_unpatch_callback(self, obj: Struct) -> None:
        return
