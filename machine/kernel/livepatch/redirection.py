# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ways in which calls of a function are led to a replacement: ftrace, as in today's kernel, and a
jump over the entry of the function, as in kSplice. kernel/livepatch/patch.c.

``klp_ftrace_handler`` is guest code: machine/guest/livepatch.c.
"""

from __future__ import annotations

import errno
from typing import Protocol

from klpfs.machine.instructions import CALL_SIZE, jump_to
from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.trace import ftrace
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.kernel.trace.text import Text
from klpfs.machine.structs import Struct


class Redirection(Protocol):
    """One of the two ways. ``func`` is a ``klp_func``, ``ops`` the ``klp_ops`` that it is on."""

    async def install(self, func: Struct, ops: Struct) -> None:
        """Prepare the redirection of a function: ``func`` is the first on its stack. Raises OSError, after a
        log line."""

    async def remove(self, func: Struct, ops: Struct) -> bool:
        """End the redirection of a function: ``func`` is the last on its stack, and still on it. Returns
        False, after a WARN, if the function has no call site any more. Other failures are a WARN only."""

    def select(self, func: Struct, version: int) -> None:
        """Lead calls to the code at ``version``; ``func.old_func`` is the original."""


class FtraceRedirection:
    """An ftrace_ops for each function, whose handler ``klp_ftrace_handler`` chooses the version at each
    call."""

    def __init__(self, common: Common, ftrace_: Ftrace) -> None:
        self._ftrace = ftrace_
        self._messages = common.messages
        self._abi = common.abi
        self._bugs = common.base.bugs
        # Before DYNAMIC_FTRACE_WITH_ARGS, only all registers include the instruction pointer.
        has_args = common.base.computer.adapter.has_type("ftrace_regs")
        self._flags = ftrace.DYNAMIC | ftrace.IPMODIFY | ftrace.PERMANENT
        self._flags |= 0 if has_args else ftrace.SAVE_REGS
        self._handler = common.base.computer.symbol("klp_ftrace_handler")

    async def install(self, func: Struct, ops: Struct) -> None:
        name = func.old_name.string()
        site = self._ftrace.location(func.old_func)
        if not site:
            self._messages.pr_err(self._abi.location.format(name=name))
            raise OSError(errno.EINVAL, "no ftrace site")
        fops = ops.member_address_("fops")
        ops.fops.func = self._handler
        ops.fops.flags = self._flags
        step = "set ftrace filter"
        try:
            await self._ftrace.set_filter_ip(fops, site)
            step = "register ftrace handler"
            await self._ftrace.register(fops)
        except OSError as error:
            self._messages.pr_err(f"failed to {step} for function '{name}' ({-(error.errno or 0)})")
            if step.startswith("register"):
                await self._ftrace.set_filter_ip(fops, site, remove=True)
            raise

    async def remove(self, func: Struct, ops: Struct) -> bool:
        fops, site = ops.member_address_("fops"), self._ftrace.location(func.old_func)
        if not site:
            self._warn_on(144)
            return False
        try:
            await self._ftrace.unregister(fops)
        except OSError:
            self._warn_on(147)
        try:
            await self._ftrace.set_filter_ip(fops, site, remove=True)
        except OSError:
            self._warn_on(148)
        return True

    def _warn_on(self, line: int) -> None:
        self._bugs.warn("kernel/livepatch/patch.c", line, "klp_unpatch_func")

    def select(self, func: Struct, version: int) -> None:
        """Do nothing: the handler looks at the stack of the function at each call."""


class JumpRedirection:
    """A jump over the first five bytes of each function. The function needs no ftrace site, and one that has
    it cannot be traced meanwhile.

    The jump is written in one step, so no task may be in the function (or run at all) at that time.
    """

    def __init__(self, common: Common, text: Text, ftrace_: Ftrace) -> None:
        self._text = text
        self._ftrace = ftrace_
        self._messages = common.messages
        self._original: dict[int, bytes] = {}

    async def install(self, func: Struct, ops: Struct) -> None:
        entry, name = int(func.old_func), func.old_name.string()
        if func.old_size < CALL_SIZE:
            self._messages.pr_err(f"function '{name}' is too small for a jump")
            raise OSError(errno.EINVAL, "too small")
        if not self._ftrace.claim(entry):
            self._messages.pr_err(f"function '{name}' is being traced")
            raise OSError(errno.EBUSY, "the function is being traced")
        self._original[entry] = self._text.read(entry)

    async def remove(self, func: Struct, ops: Struct) -> bool:
        entry = int(func.old_func)
        self.select(func, entry)
        del self._original[entry]
        self._ftrace.give_back(entry)
        return True

    def select(self, func: Struct, version: int) -> None:
        entry = int(func.old_func)
        code = self._original[entry] if version == entry else jump_to(entry, version)
        if self._text.read(entry) != code:
            self._text.poke_early(entry, code)
