# SPDX-License-Identifier: GPL-2.0-or-later
"""Consistency models: what keeps old and new functions from meeting while a patch goes on or off.

Two axes make a model: what a task must have *left* before it converts (`leaving`), and what *switches* at
once (`switching`). The pairs that somebody has built have names:

========  ============  ========  ===========================================================
3.20      function      function  at once; a running call finishes in the old function
ksplice   patched_set   kernel    the machine stands, every stack is checked, a few times; a
                                  jump over the function's entry
kpatch    patched_set   kernel    the machine stands, every stack is checked, once; ftrace
refcount  patched_set   kernel    calls of the set are counted, the switch comes when none is
                                  left; nobody is stopped
kgraft    kernel        thread    each task as it leaves the kernel or passes a safe point
hybrid    patched_set   thread    today's kernel
criu      kernel        kernel    all tasks are kept out of the kernel until all are
========  ============  ========  ===========================================================

The others are called ``leave=function,switch=kernel`` and so on, and redirect by ftrace. Those that stop the
machine or freeze it to change everything in one step try while the writer of ``enabled`` (or insmod) waits,
and end with EBUSY and everything as it was. The others go on trying each second, and can be reversed and
forced, as today's.

A patch says what it is willing to use in its modinfo, ``klp_consistency``, the best first; one that says
nothing gets the default. ``sys/module/livepatch/parameters/consistency`` is the default, and
``consistency_allowed`` a list that the administrator allows, or ``any``. A patch keeps its model as long as
it is installed, and comes off by it.

Stacking: there is one transition at a time, and the version that a finished one has left is the same for
everybody, whichever model it came by. So a patch with any model may be put on top of, replace, or be taken
from under, a patch with any other, as far as they share no function. A function they share must be
redirected in one way: where an ftrace handler stands at its entry a jump would write over the call, and the
older patch would be off without knowing; over a jump there is no call site for ftrace. Either is refused
with EBUSY. For the same reason a tracer and a jump exclude each other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import NamedTuple

from klpfs.machine.kernel.kobject import KobjAttribute, Kobject
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING, Printk
from klpfs.machine.structs import Struct

LEAVE = ("function", "patched_set", "kernel")
SWITCH = ("function", "thread", "kernel")
ANY = "any"
MODINFO = "klp_consistency"


class Model(NamedTuple):
    """A consistency model. ``leave`` and ``switch``: the two axes; ``redirection``: ``ftrace`` or ``jump``;
    ``detection``: ``stacks`` or ``refcount``; ``tries``: of one that gives up."""

    name: str
    leave: str
    switch: str
    redirection: str = "ftrace"
    detection: str = "stacks"
    tries: int = 1


PRESETS = {
    model.name: model
    for model in (
        Model("3.20", "function", "function"),
        Model("ksplice", "patched_set", "kernel", redirection="jump", tries=5),
        Model("kpatch", "patched_set", "kernel"),
        Model("refcount", "patched_set", "kernel", detection="refcount"),
        Model("kgraft", "kernel", "thread"),
        Model("hybrid", "patched_set", "thread"),
        Model("criu", "kernel", "kernel"),
    )
}
DEFAULT = PRESETS["hybrid"]


def pair(leave: str, switch: str) -> Model:
    """The model of two axes, without the name and the peculiarities of a preset. Raises ValueError."""
    if leave not in LEAVE or switch not in SWITCH:
        raise ValueError(f"leave={leave},switch={switch}")
    return Model(f"leave={leave},switch={switch}", leave, switch)


def parse(text: str) -> Model:
    """A preset by its name, or ``leave=...,switch=...``. Raises ValueError: there is no such model."""
    if text in PRESETS:
        return PRESETS[text]
    leave, comma, switch = text.partition(",")
    if not comma or not leave.startswith("leave=") or not switch.startswith("switch="):
        raise ValueError(text)
    return pair(leave.removeprefix("leave="), switch.removeprefix("switch="))


def split(text: str) -> list[str]:
    """The names in a comma list; ``leave=...,switch=...`` is one of them."""
    names: list[str] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word.startswith("switch=") and names and names[-1].startswith("leave="):
            names[-1] += f",{word}"
        else:
            names.append(word)
    return names


class Consistency:
    """Which model each patch of one kernel has, and what its administrator says to that.

    ``unavailable``: why the kernel image cannot have a model, or nothing. ``modinfo`` gives what a module
    says under a tag.
    """

    def __init__(
        self,
        printk: Printk,
        unavailable: Callable[[Model], str],
        modinfo: Callable[[int, str], str | None],
        default: Model = DEFAULT,
    ) -> None:
        self._printk = printk
        self._unavailable = unavailable
        self._modinfo = modinfo
        self.default = default
        self.allowed: Sequence[Model] | None = None
        """None: any."""
        self._models: dict[int, Model] = {}

    def parameters(self) -> Kobject:
        """The directory for the administrator."""
        return Kobject(
            "parameters",
            [
                KobjAttribute("consistency", self._show_default, self._store_default),
                KobjAttribute("consistency_allowed", self._show_allowed, self._store_allowed),
            ],
        )

    def _say(self, level: int, text: str) -> None:
        self._printk(level, f"livepatch: {text}")

    # -- patches ----------------------------------------------------------------------------------

    def of(self, patch: Struct) -> Model:
        """The model of an installed patch."""
        return self._models.get(patch.address_, self.default)

    def choose(self, patch: Struct, name: str) -> None:
        """Give a patch that is being enabled the first model that it is willing to use and may. Raises
        OSError(EINVAL), after a line in the log: there is none."""
        said = self._modinfo(int(patch.mod), MODINFO)
        willing = self._willing(name, said) if said is not None else [self.default]
        for model in willing:
            if self._may(model) and not self._unavailable(model):
                self._models[patch.address_] = model
                return
        for model in willing:
            if self._may(model):
                self._say(
                    LOGLEVEL_ERR, f"consistency model '{model.name}': {self._unavailable(model)}"
                )
        self._say(
            LOGLEVEL_ERR,
            f"patch '{name}' is willing to use {_names(willing) or 'no model that there is'}, "
            f"allowed is {self._allowed_text()}: no consistency model in common",
        )
        raise OSError(errno.EINVAL, "no consistency model in common")

    def _willing(self, name: str, said: str) -> list[Model]:
        willing = []
        for word in split(said):
            try:
                willing.append(parse(word))
            except ValueError:
                self._say(
                    LOGLEVEL_WARNING, f"patch '{name}': there is no consistency model '{word}'"
                )
        return willing

    def _may(self, model: Model) -> bool:
        return self.allowed is None or model in self.allowed

    def forget(self, patch: Struct) -> None:
        """The patch is not installed any more."""
        self._models.pop(patch.address_, None)

    # -- the administrator ------------------------------------------------------------------------

    def _parse(self, text: str) -> Model:
        try:
            return parse(text)
        except ValueError:
            self._say(LOGLEVEL_ERR, f"there is no consistency model '{text}'")
            raise OSError(errno.EINVAL, "no such model") from None

    def _allowed_text(self) -> str:
        return ANY if self.allowed is None else _names(self.allowed)

    def _show_default(self) -> str:
        return f"{self.default.name}\n"

    async def _store_default(self, data: bytes) -> None:
        model = self._parse(_text(data))
        if why := self._unavailable(model):
            self._say(LOGLEVEL_ERR, f"consistency model '{model.name}': {why}")
            raise OSError(errno.EINVAL, "not on this kernel")
        self.default = model

    def _show_allowed(self) -> str:
        return f"{self._allowed_text()}\n"

    async def _store_allowed(self, data: bytes) -> None:
        text = _text(data)
        names = split(text)
        if not names:
            self._say(LOGLEVEL_ERR, f"'{ANY}' or a list of consistency models is wanted")
            raise OSError(errno.EINVAL, "no model")
        self.allowed = None if names == [ANY] else [self._parse(name) for name in names]


def _names(models: Sequence[Model]) -> str:
    return ",".join(model.name for model in models)


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("latin-1").strip()
