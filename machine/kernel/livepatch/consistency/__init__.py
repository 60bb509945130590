# SPDX-License-Identifier: GPL-2.0-or-later
"""Consistency models: how a patch keeps old and new versions of its functions from meeting.

A model is a pair: what a task must have *left* before it converts to the new version (`leaving`), and what
*switches* at once (`switches`). Some pairs have been built, and have names:

========  ============  ========  ===========================================================
name      leave         switch    how
========  ============  ========  ===========================================================
3.20      function      function  at once; a running call finishes in the old function
ksplice   patched_set   kernel    the machine stops, and all stacks are checked, up to five
                                  times; a jump over the entry of each function
kpatch    patched_set   kernel    the machine stops, and all stacks are checked, once; ftrace
refcount  patched_set   kernel    calls of the set are counted, and the switch comes when the
                                  count is zero; no task is stopped
kgraft    kernel        thread    each task as it leaves the kernel or passes a safe point
hybrid    patched_set   thread    today's kernel
criu      kernel        kernel    all tasks are kept out of the kernel until all are outside
========  ============  ========  ===========================================================

The other pairs are called ``leave=function,switch=kernel`` and so on, and redirect by ftrace. Models that
stop or freeze the kernel to change everything in one step try while the writer of ``enabled`` (or insmod)
waits. When they give up, the write fails with EBUSY and nothing has changed. The other models try again
each second, and can be reversed and forced, as in today's kernel.

A patch lists the models that it accepts in its modinfo ``klp_consistency``, the preferred one first. A
patch without it gets the default. The parameters below sys/module/livepatch/parameters/ are
``consistency``, the default, and ``consistency_allowed``, a list of models that the administrator allows,
or ``any``. A patch keeps its model as long as it is installed, and is disabled by it.

Stacking: there is one transition at a time, and a finished transition leaves all tasks in the same
version, whatever the model was. So a patch with any model may be installed on top of a patch with any
other, replace it, or be disabled under it, if they share no function. A function that they share must be
redirected in one way: a jump would overwrite the ftrace call at its entry, which would disable the older
patch unnoticed, and after a jump there is no ftrace site. Both are refused with EBUSY. For the same
reason a tracer and a jump exclude each other.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

LEAVE = ("function", "patched_set", "kernel")
SWITCH = ("function", "thread", "kernel")


class Model(NamedTuple):
    """A consistency model."""

    name: str
    leave: str
    """One of `LEAVE`."""
    switch: str
    """One of `SWITCH`."""
    redirection: Literal["ftrace", "jump"] = "ftrace"
    detection: Literal["stacks", "refcount"] = "stacks"
    """How it finds out that the patched set has been left."""
    tries: int = 1
    """The number of attempts of a model that gives up."""


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
"""The models that have a name."""
DEFAULT = PRESETS["hybrid"]


def pair(leave: str, switch: str) -> Model:
    """Return the model of two axes, without the name and the other properties of a preset. Raises ValueError
    for a value that is not in `LEAVE` or `SWITCH`."""
    if leave not in LEAVE or switch not in SWITCH:
        raise ValueError(f"leave={leave},switch={switch}")
    return Model(f"leave={leave},switch={switch}", leave, switch)


def parse(text: str) -> Model:
    """Return the preset of that name, or the model for ``leave=...,switch=...``. Raises ValueError for any
    other text."""
    if text in PRESETS:
        return PRESETS[text]
    leave, comma, switch = text.partition(",")
    if not comma or not leave.startswith("leave=") or not switch.startswith("switch="):
        raise ValueError(text)
    return pair(leave.removeprefix("leave="), switch.removeprefix("switch="))


def split(text: str) -> list[str]:
    """Return the names in a comma-separated list. ``leave=...,switch=...`` is one name."""
    names: list[str] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word.startswith("switch=") and names and names[-1].startswith("leave="):
            names[-1] += f",{word}"
        else:
            names.append(word)
    return names
