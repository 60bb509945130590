# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of what subsystems do when a module comes and goes.

In Linux these are calls of load_module(), prepare_coming_module(), do_init_module(), delete_module() and
free_module(), kernel/module/main.c.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import itemgetter

from klpfs.machine.kernel.module.loaded import LoadedModule

Hook = Callable[[LoadedModule], Awaitable[None] | None]
"""A function of a subscriber. An ``async`` function may run guest code and wait."""


def _nothing(_module: LoadedModule) -> None:
    pass


class Stage(enum.IntEnum):
    """The order in which the subscribers are called for a coming module."""

    SYMBOLS = enum.auto()
    """``add_kallsyms``."""
    FTRACE = enum.auto()
    """``ftrace_module_init``, ``ftrace_module_enable``."""
    BUGS = enum.auto()
    """``module_bug_finalize``."""
    JUMP_LABELS = enum.auto()
    """``jump_label_module_notify``."""
    UNWINDER = enum.auto()
    """``unwind_module_init``."""
    EXCEPTIONS = enum.auto()
    """``mod->extable``."""
    LIVEPATCH = enum.auto()
    """``klp_module_coming``."""
    NOTIFIERS = enum.auto()
    """``module_notify_list``, the notifiers of guest code."""
    PARAMETERS = enum.auto()
    """``parse_args``."""
    SYSFS = enum.auto()
    """``mod_sysfs_setup``."""


@dataclass(frozen=True, kw_only=True)
class ModuleSubscriber:
    """The functions of one subsystem. `going` and `freed` undo `coming`."""

    coming: Hook = _nothing
    """Called before the init function runs. It raises OSError to refuse the module."""
    live: Hook = _nothing
    """Called after the init function has succeeded, before the memory of init is freed."""
    going: Hook = _nothing
    """Called when the module is unloaded, after its exit function; when its init function has failed; and
    when the `coming` of a later subscriber has raised an exception."""
    freed: Hook = _nothing
    """Called before the memory of the module is freed, also if `coming` has raised an exception."""


class ModuleSubscribers:
    """The subscribers of one kernel.

    `coming` calls them in the order of their stages, and within a stage in the order in which they were
    added; `live`, `going` and `freed` call them in the reverse order.
    """

    def __init__(self) -> None:
        self._subscribers: list[tuple[Stage, ModuleSubscriber]] = []
        self._called: dict[LoadedModule, list[ModuleSubscriber]] = {}
        """The subscribers whose `coming` has been called, by module."""

    def add(self, stage: Stage, subscriber: ModuleSubscriber) -> None:
        """Add a subscriber. It is not called for modules that are loaded already."""
        insort(self._subscribers, (stage, subscriber), key=itemgetter(0))

    async def coming(self, module: LoadedModule) -> None:
        """Call all subscribers for a module whose init function is about to run. Raises the exception of the
        first one that refuses the module, after calling `ModuleSubscriber.going` of those before it."""
        called = self._called[module] = []
        for _, subscriber in self._subscribers:
            called.append(subscriber)
            try:
                await _call(subscriber.coming, module)
            except Exception:
                for earlier in reversed(called[:-1]):
                    await _call(earlier.going, module)
                raise

    async def live(self, module: LoadedModule) -> None:
        """Call all subscribers for a module whose init function has succeeded."""
        for subscriber in reversed(self._called[module]):
            await _call(subscriber.live, module)

    async def going(self, module: LoadedModule) -> None:
        """Call all subscribers for a module that is being unloaded, or whose init function has failed."""
        for subscriber in reversed(self._called[module]):
            await _call(subscriber.going, module)

    async def freed(self, module: LoadedModule) -> None:
        """Call the subscribers whose `coming` was called for the module, before its memory is freed. If one
        raises an exception, the others are called nevertheless."""
        async with AsyncExitStack() as stack:
            for subscriber in self._called.pop(module, ()):
                stack.push_async_callback(_call, subscriber.freed, module)


async def _call(hook: Hook, module: LoadedModule) -> None:
    waiting = hook(module)
    if waiting is not None:
        await waiting
