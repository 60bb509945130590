# SPDX-License-Identifier: GPL-2.0-or-later
"""What live patching showed to modules and to users in which kernel, as a table.

The structs and the exported functions of each are in the headers of `klpfs.modules.abi`, and so in the types
and symbols of an image that was compiled against them; here is the rest. Sources: the histories of
Documentation/ABI/testing/sysfs-kernel-livepatch and of kernel/livepatch/.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Life(enum.Enum):
    """What a patch goes through; each has a core of its own."""

    NONE = enum.auto()
    """CONFIG_LIVEPATCH is off: there is none."""
    REGISTERED_AT_ONCE = enum.auto()
    """Registered, enabled and disabled at will, without a transition: `first`."""
    REGISTERED = enum.auto()
    """The same with transitions: `registered`."""
    ENABLED = enum.auto()
    """Enabled once, and gone when it is disabled: `core`."""


@dataclass(frozen=True)
class Abi:
    """One kernel's live patching. The values given here are those of the latest."""

    life: Life = Life.ENABLED
    marked: bool = True
    """A module must say that it is a live patch (``livepatch=Y``), and taints as it loads (since 4.7)."""
    patch_attributes: tuple[str, ...] = (
        "enabled", "transition", "force", "replace", "stack_order",
    )  # fmt: skip
    """The files of /sys/kernel/livepatch/<patch>/."""
    object_attributes: tuple[str, ...] = ("patched",)
    function_directory: str = "{name},{sympos}"
    """The name of /sys/kernel/livepatch/<patch>/<object>/<...>/."""
    callbacks: bool = True
    """``klp_object.callbacks`` (since 4.15)."""
    patch_state: bool = True
    """/proc/<pid>/patch_state, which came with transitions."""
    signals: bool = True
    """Tasks that are in the way of a transition are woken up (by itself since 5.1)."""
    clears_relocations: bool = True
    """A patched module that goes can come again although the patch has relocations against it
    (since 6.3)."""
    starting: str = "'{patch}': starting {what} transition"
    """What the log says when a transition starts (reworded in 4.15)."""
    ambiguity: str = "unresolvable ambiguity for symbol '{name}' in object '{object}'"
    """What the log says of a symbol that is there more than once (reworded in 4.6)."""
    location: str = "failed to find location for function '{name}'"
    """What the log says of a function that cannot be traced (found out elsewhere before 4.7)."""
    absent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Members that this kernel's structs do not have yet: what the core gets when it asks for them."""


_NO_STATES = {"states": 0}
_NO_REPLACE = {"states": 0, "replace": 0}

ABIS: Mapping[str, Abi] = {
    "latest": Abi(),
    "6.1": Abi(
        patch_attributes=("enabled", "transition", "force"),
        clears_relocations=False,
    ),
    "5.1": Abi(
        patch_attributes=("enabled", "transition", "force"),
        object_attributes=(),
        clears_relocations=False,
        absent={"struct klp_patch": _NO_STATES},
    ),
    "4.12": Abi(
        life=Life.REGISTERED,
        patch_attributes=("enabled", "transition"),
        object_attributes=(),
        callbacks=False,
        signals=False,
        clears_relocations=False,
        starting="'{patch}': {what}...",
        absent={"struct klp_patch": _NO_REPLACE},
    ),
    "3.20": Abi(
        life=Life.REGISTERED_AT_ONCE,
        marked=False,
        patch_attributes=("enabled",),
        object_attributes=(),
        function_directory="{name}",
        callbacks=False,
        patch_state=False,
        ambiguity="unresolvable ambiguity ({count} matches) on symbol '{name}' in object '{object}'",
        location="failed to set ftrace filter for function '{name}' (-22)",
        absent={"struct klp_patch": _NO_REPLACE, "struct klp_func": {"old_sympos": 0}},
    ),
    "none": Abi(life=Life.NONE, patch_state=False),
}
"""By the names that ``--abi`` takes; ``none`` is ``--no-livepatch``."""
