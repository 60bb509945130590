# SPDX-License-Identifier: GPL-2.0-or-later
"""What live patching shows to modules and to users, by kernel, as a table.

The structs and the exported functions of each kernel are in the headers of `klpfs.modules.abi`, and so in the
types and symbols of an image that was compiled with them. Here is the rest. Sources: the histories of
Documentation/ABI/testing/sysfs-kernel-livepatch and of kernel/livepatch/.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from klpfs.machine.kernel.printk.printk import LOGLEVEL_NOTICE, LOGLEVEL_WARNING


class Life(enum.Enum):
    """The states that a patch goes through. `build` chooses the parts of the core by it."""

    NONE = enum.auto()
    """CONFIG_LIVEPATCH is off: there are no patches."""
    REGISTERED_AT_ONCE = enum.auto()
    """Registered, then enabled and disabled at will, without transitions."""
    REGISTERED = enum.auto()
    """Registered, then enabled and disabled at will, with transitions: `older.registered`."""
    ENABLED = enum.auto()
    """Enabled once, and freed when it is disabled: `core`."""


class LogLine(NamedTuple):
    """A line in the kernel log, with places to be filled in."""

    level: int
    text: str

    def format(self, **values: object) -> tuple[int, str]:
        """Return the level, and the text with the values filled in."""
        return self.level, self.text.format(**values)


@dataclass(frozen=True)
class Abi:
    """The live patching of one kernel. The defaults are those of the latest."""

    life: Life = Life.ENABLED
    marked: bool = True
    """A module says in its modinfo that it is a live patch (``livepatch=Y``), and taints the kernel when
    it is loaded (since 4.7)."""
    patch_attributes: tuple[str, ...] = (
        "enabled", "transition", "force", "replace", "stack_order",
    )  # fmt: skip
    """The files of /sys/kernel/livepatch/<patch>/."""
    object_attributes: tuple[str, ...] = ("patched",)
    """The files of /sys/kernel/livepatch/<patch>/<object>/."""
    function_directory: str = "{name},{sympos}"
    """The name of the directory of a function in /sys/kernel/livepatch/<patch>/<object>/."""
    callbacks: bool = True
    """Objects have callbacks, ``klp_object.callbacks`` (since 4.15)."""
    patch_state: bool = True
    """There is /proc/<pid>/patch_state, which came with transitions."""
    signals: bool = True
    """Tasks that block a transition are woken up, without a request by the user (since 5.1)."""
    clears_relocations: bool = True
    """A patched module can be loaded again although the patch has relocations against it (since 6.3)."""
    starting: str = "'{patch}': starting {what} transition"
    """Logged when a transition starts (reworded in 4.15)."""
    object_failed: str = "failed to patch object '{object}'"
    """Logged when the functions of an object cannot be patched while a patch is being enabled; empty:
    nothing."""
    enable_failed: LogLine = LogLine(LOGLEVEL_WARNING, "failed to enable patch '{patch}'")
    """Logged when a patch cannot be enabled and what has been done is undone."""
    disabling: str = ""
    """Logged when a patch is about to be disabled; empty: nothing."""
    ambiguity: str = "unresolvable ambiguity for symbol '{name}' in object '{object}'"
    """Logged about a symbol that exists more than once (reworded in 4.6)."""
    location: str = "failed to find location for function '{name}'"
    """Logged about a function without an ftrace site (found out elsewhere before 4.7)."""
    absent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Members that the structs of this kernel do not have, and the values that the core reads instead."""


_PATCH = {"immediate": 0}
_FUNC = {"immediate": 0}
_ABSENT = {"struct klp_patch": _PATCH, "struct klp_func": _FUNC}
"""``immediate`` existed from 4.12 to 4.15 only."""

ABIS: Mapping[str, Abi] = {
    "latest": Abi(absent=_ABSENT),
    "6.1": Abi(
        patch_attributes=("enabled", "transition", "force"),
        clears_relocations=False,
        absent=_ABSENT,
    ),
    "5.1": Abi(
        patch_attributes=("enabled", "transition", "force"),
        object_attributes=(),
        clears_relocations=False,
        absent={"struct klp_patch": {**_PATCH, "states": 0}, "struct klp_func": _FUNC},
    ),
    "4.12": Abi(
        life=Life.REGISTERED,
        patch_attributes=("enabled", "transition"),
        object_attributes=(),
        callbacks=False,
        signals=False,
        clears_relocations=False,
        starting="'{patch}': {what}...",
        object_failed="",
        absent={"struct klp_patch": {"states": 0, "replace": 0}},
    ),
    "3.20": Abi(
        life=Life.REGISTERED_AT_ONCE,
        marked=False,
        patch_attributes=("enabled",),
        object_attributes=(),
        function_directory="{name}",
        callbacks=False,
        patch_state=False,
        object_failed="",
        enable_failed=LogLine(LOGLEVEL_NOTICE, "disabling patch '{patch}'"),
        disabling="disabling patch '{patch}'",
        ambiguity="unresolvable ambiguity ({count} matches) on symbol '{name}' in object '{object}'",
        location="failed to set ftrace filter for function '{name}' (-22)",
        absent={
            "struct klp_patch": {**_PATCH, "states": 0, "replace": 0},
            "struct klp_func": {**_FUNC, "old_sympos": 0},
        },
    ),
    "none": Abi(life=Life.NONE, patch_state=False),
}
"""By the names that ``--abi`` takes; ``none`` is ``--no-livepatch``."""
