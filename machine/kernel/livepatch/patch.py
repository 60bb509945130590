# SPDX-License-Identifier: GPL-2.0-or-later
"""Redirecting functions: one ``klp_ops`` for each patched function, with the stack of its replacements.
kernel/livepatch/patch.c. What leads a call to one of them is guest code: ``klp_ftrace_handler``, which
chooses at each call, or a jump at the entry of the function."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Protocol

from klpfs.machine.computer import Computer
from klpfs.machine.instructions import CALL_SIZE, jump_to
from klpfs.machine.kernel.livepatch.abi import Abi
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, Printk
from klpfs.machine.kernel.trace import ftrace
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.kernel.trace.text import Text
from klpfs.machine.structs import Space, Struct


def klp_for_each_object(space: Space, patch: Struct) -> Iterator[Struct]:
    """The ``klp_object``s of a patch, also the dynamic ones; the one at hand may be taken out."""
    return space.list_entries(patch.member_address_("obj_list"), "struct klp_object", "node")


def klp_for_each_func(space: Space, obj: Struct) -> Iterator[Struct]:
    """The ``klp_func``s of an object, also nops; the one at hand may be taken out."""
    return space.list_entries(obj.member_address_("func_list"), "struct klp_func", "node")


def object_name(obj: Struct) -> str:
    """The name of the module that an object stands for, or ``vmlinux``."""
    return obj.name.string() if obj.name else "vmlinux"


class Way(Protocol):
    """How calls of a function are led to its replacements."""

    async def install(self, func: Struct, ops: Struct) -> None:
        """``func`` is the first on the stack of ``ops``. Raises OSError, after a line in the log."""

    async def remove(self, func: Struct, ops: Struct) -> None:
        """``func`` is the last on the stack and about to leave it."""

    def turn(self, func: Struct, version: int) -> None:
        """Callers get ``version`` now: a function, or the original if that is ``func.old_func``."""


class ByFtrace:
    """An ftrace_ops for each function, with ``klp_ftrace_handler``, which finds the version by itself."""

    def __init__(self, computer: Computer, ftrace_: Ftrace, printk: Printk, abi: Abi) -> None:
        self._ftrace = ftrace_
        self._printk = printk
        self._abi = abi
        # Before DYNAMIC_FTRACE_WITH_ARGS, only all registers include the instruction pointer.
        has_args = "struct ftrace_regs" in computer.space.types
        self._flags = ftrace.DYNAMIC | ftrace.IPMODIFY | ftrace.PERMANENT
        self._flags |= 0 if has_args else ftrace.SAVE_REGS
        self._handler = computer.symbol("klp_ftrace_handler")

    async def install(self, func: Struct, ops: Struct) -> None:
        name = func.old_name.string()
        site = self._ftrace.location(func.old_func)
        if not site:
            self._printk(LOGLEVEL_ERR, "livepatch: " + self._abi.location.format(name=name))
            raise OSError(errno.EINVAL, "no ftrace site")
        fops = ops.member_address_("fops")
        ops.fops.func = self._handler
        ops.fops.flags = self._flags
        doing = "set ftrace filter"
        try:
            await self._ftrace.set_filter_ip(fops, site)
            doing = "register ftrace handler"
            await self._ftrace.register(fops)
        except OSError as error:
            self._printk(
                LOGLEVEL_ERR,
                f"livepatch: failed to {doing} for function '{name}' ({-(error.errno or 0)})",
            )
            if doing.startswith("register"):
                await self._ftrace.set_filter_ip(fops, site, remove=True)
            raise

    async def remove(self, func: Struct, ops: Struct) -> None:
        fops = ops.member_address_("fops")
        await self._ftrace.unregister(fops)
        await self._ftrace.set_filter_ip(fops, self._ftrace.location(func.old_func), remove=True)

    def turn(self, func: Struct, version: int) -> None:
        """Nothing: the handler asks."""


class ByJump:
    """A jump over the first five bytes of each function, as kSplice does it. No ftrace: a function needs
    no call site, and one that has it cannot be traced meanwhile.

    The text is written in one step, so nobody may be in the function (or run at all) then.
    """

    def __init__(self, text: Text, ftrace_: Ftrace, printk: Printk) -> None:
        self._text = text
        self._ftrace = ftrace_
        self._printk = printk
        self._original: dict[int, bytes] = {}

    async def install(self, func: Struct, ops: Struct) -> None:
        entry, name = int(func.old_func), func.old_name.string()
        if func.old_size < CALL_SIZE:
            self._printk(LOGLEVEL_ERR, f"livepatch: function '{name}' is too small for a jump")
            raise OSError(errno.EINVAL, "too small")
        if not self._ftrace.claim(entry):
            self._printk(LOGLEVEL_ERR, f"livepatch: function '{name}' is being traced")
            raise OSError(errno.EBUSY, "ftrace has it")
        self._original[entry] = self._text.read(entry)

    async def remove(self, func: Struct, ops: Struct) -> None:
        entry = int(func.old_func)
        self.turn(func, entry)
        del self._original[entry]
        self._ftrace.give_back(entry)

    def turn(self, func: Struct, version: int) -> None:
        entry = int(func.old_func)
        code = self._original[entry] if version == entry else jump_to(entry, version)
        if self._text.read(entry) != code:
            self._text.poke_early(entry, code)


class Redirection:
    """The patched functions of one kernel, and the stacks of their replacements."""

    def __init__(
        self,
        computer: Computer,
        slab: Slab,
        ftrace_: Ftrace,
        text: Text,
        printk: Printk,
        abi: Abi,
    ) -> None:
        self._space = computer.space
        self._slab = slab
        self._printk = printk
        self._klp_ops = computer.symbol("klp_ops")
        self._space.init_list_head(self._klp_ops)
        self._ops_of: dict[int, int] = {}  # what is on klp_ops, by old_func
        self._way_of: dict[int, str] = {}
        self._ways: dict[str, Way] = {
            "ftrace": ByFtrace(computer, ftrace_, printk, abi),
            "jump": ByJump(text, ftrace_, printk),
        }

    def find_ops(self, old_func: int) -> Struct | None:
        """``klp_find_ops``: the ops of a function that is patched now."""
        address = self._ops_of.get(old_func)
        return self._space.view("struct klp_ops", address) if address else None

    def func_stack(self, ops: Struct) -> Iterator[Struct]:
        """The replacements of one function, the newest first."""
        head = ops.member_address_("func_stack")
        return self._space.list_entries(head, "struct klp_func", "stack_node")

    def below(self, func: Struct) -> Struct | None:
        """What a patched function redirects from: the replacement under it on the stack, None for the
        original. In Linux only who is at the top is asked."""
        ops = self.find_ops(func.old_func)
        assert ops is not None, "a patched function has an ops"
        following = int(func.stack_node.next)
        if following == ops.member_address_("func_stack"):
            return None
        under: Struct = self._space.container_of(following, "struct klp_func", "stack_node")
        return under

    def turn(self, func: Struct, *, new: bool) -> None:
        """Let callers of a patched function have its new version, or what is below that, if it is at the
        top of its stack."""
        ops = self.find_ops(func.old_func)
        assert ops is not None, "a patched function has an ops"
        if next(self.func_stack(ops)).address_ == func.address_:
            runs = func if new else self.below(func)
            self._way(func).turn(func, int(func.old_func if runs is None else runs.new_func))

    def _way(self, func: Struct) -> Way:
        return self._ways[self._way_of[int(func.old_func)]]

    async def _patch_func(self, func: Struct, way: str) -> None:
        space, node, old_func = self._space, func.member_address_("stack_node"), int(func.old_func)
        ops = self.find_ops(old_func)
        if ops is not None:
            self._check_way(func, way)
            space.list_add(node, ops.member_address_("func_stack"))
        else:
            ops = self._new_ops()
            space.list_add(ops.member_address_("node"), self._klp_ops)
            space.init_list_head(ops.member_address_("func_stack"))
            space.list_add(node, ops.member_address_("func_stack"))
            self._ops_of[old_func], self._way_of[old_func] = ops.address_, way
            try:
                await self._way(func).install(func, ops)
            except OSError:
                self._drop(func, ops)
                raise
        func.patched = True
        if not func.transition:
            self.turn(func, new=True)

    def _check_way(self, func: Struct, way: str) -> None:
        other = self._way_of[int(func.old_func)]
        if other != way:
            self._printk(
                LOGLEVEL_ERR,
                f"livepatch: function '{func.old_name.string()}' is redirected by {other}, "
                f"no patch can redirect it by {way}",
            )
            raise OSError(errno.EBUSY, "redirected in another way")

    def _new_ops(self) -> Struct:
        size = self._space.types.sizeof("struct klp_ops")
        try:
            ops: Struct = self._space.view("struct klp_ops", self._slab.alloc(size, "klp_ops"))
        except MemoryError:
            raise OSError(errno.ENOMEM, "no memory for a klp_ops") from None
        return ops

    def _drop(self, func: Struct, ops: Struct) -> None:
        """The last replacement of a function goes, and with it the ops."""
        self._space.list_del(func.member_address_("stack_node"))
        self._space.list_del(ops.member_address_("node"))
        del self._ops_of[int(func.old_func)], self._way_of[int(func.old_func)]
        self._slab.free(ops.address_)

    async def _unpatch_func(self, func: Struct) -> None:
        space = self._space
        ops = self.find_ops(func.old_func)
        if ops is None:
            return
        if space.list_is_singular(ops.member_address_("func_stack")):
            await self._way(func).remove(func, ops)
            self._drop(func, ops)
        else:
            self.turn(func, new=False)
            space.list_del_rcu(func.member_address_("stack_node"))
        func.patched = False

    async def patch_object(self, obj: Struct, way: str = "ftrace") -> None:
        """``klp_patch_object``: all functions of an object, or none. ``way``: ``ftrace`` or ``jump``. Raises
        OSError."""
        try:
            for func in klp_for_each_func(self._space, obj):
                await self._patch_func(func, way)
        except OSError:
            await self.unpatch_object(obj)
            raise
        obj.patched = True

    async def unpatch_object(self, obj: Struct, *, nops_only: bool = False) -> None:
        """``klp_unpatch_object``: take the functions of an object (or only its nops) off the stacks."""
        for func in klp_for_each_func(self._space, obj):
            if func.patched and (func.nop or not nops_only):
                await self._unpatch_func(func)
        if obj.dynamic or not nops_only:
            obj.patched = False

    async def unpatch_objects(self, patch: Struct, *, nops_only: bool = False) -> None:
        """``klp_unpatch_objects``, ``klp_unpatch_objects_dynamic``."""
        for obj in klp_for_each_object(self._space, patch):
            if obj.patched:
                await self.unpatch_object(obj, nops_only=nops_only)
