# SPDX-License-Identifier: GPL-2.0-or-later
"""Redirecting functions: one ``klp_ops`` for each patched function, with the stack of its replacements.
kernel/livepatch/patch.c. The handler that chooses among them is guest code, ``klp_ftrace_handler``."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from machine.computer import Computer
from machine.kernel import ftrace
from machine.kernel import printk as log
from machine.kernel.ftrace import Ftrace
from machine.kernel.printk import Printk
from machine.kernel.slab import Slab
from machine.structs import Space, Struct


def klp_for_each_object(space: Space, patch: Struct) -> Iterator[Struct]:
    """The ``klp_object``s of a patch, also the dynamic ones; the one at hand may be taken out."""
    return space.list_entries(patch.member_address_("obj_list"), "struct klp_object", "node")


def klp_for_each_func(space: Space, obj: Struct) -> Iterator[Struct]:
    """The ``klp_func``s of an object, also nops; the one at hand may be taken out."""
    return space.list_entries(obj.member_address_("func_list"), "struct klp_func", "node")


def object_name(obj: Struct) -> str:
    """The name of the module that an object stands for, or ``vmlinux``."""
    return obj.name.string() if obj.name else "vmlinux"


class Redirection:
    """The patched functions of one kernel."""

    def __init__(self, computer: Computer, slab: Slab, ftrace_: Ftrace, printk: Printk) -> None:
        self._space = computer.space
        self._slab = slab
        self._ftrace = ftrace_
        self._printk = printk
        self._klp_ops = computer.symbol("klp_ops")
        self._handler = computer.symbol("klp_ftrace_handler")
        self._space.init_list_head(self._klp_ops)

    def find_ops(self, old_func: int) -> Struct | None:
        """``klp_find_ops``: the ops of a function that is patched now."""
        ops: Struct
        for ops in self._space.list_entries(self._klp_ops, "struct klp_ops", "node"):
            if next(self.func_stack(ops)).old_func == old_func:
                return ops
        return None

    def func_stack(self, ops: Struct) -> Iterator[Struct]:
        """The replacements of one function, the newest first."""
        head = ops.member_address_("func_stack")
        return self._space.list_entries(head, "struct klp_func", "stack_node")

    async def _patch_func(self, func: Struct) -> None:
        space, node = self._space, func.member_address_("stack_node")
        ops = self.find_ops(func.old_func)
        if ops is not None:
            space.list_add(node, ops.member_address_("func_stack"))
            func.patched = True
            return
        name = func.old_name.string()
        site = self._ftrace.location(func.old_func)
        if not site:
            self._printk(log.ERR, f"livepatch: failed to find location for function '{name}'")
            raise OSError(errno.EINVAL, "no ftrace site")
        size = space.types.sizeof("struct klp_ops")
        ops = space.view("struct klp_ops", self._slab.alloc(size, "klp_ops"))
        fops = ops.member_address_("fops")
        ops.fops.func = self._handler
        ops.fops.flags = ftrace.DYNAMIC | ftrace.SAVE_REGS | ftrace.IPMODIFY | ftrace.PERMANENT
        space.list_add(ops.member_address_("node"), self._klp_ops)
        space.init_list_head(ops.member_address_("func_stack"))
        space.list_add(node, ops.member_address_("func_stack"))
        doing = "set ftrace filter"
        try:
            await self._ftrace.set_filter_ip(fops, site)
            doing = "register ftrace handler"
            await self._ftrace.register(fops)
        except OSError as error:
            self._printk(
                log.ERR,
                f"livepatch: failed to {doing} for function '{name}' ({-(error.errno or 0)})",
            )
            if doing.startswith("register"):
                await self._ftrace.set_filter_ip(fops, site, remove=True)
            space.list_del(node)
            space.list_del(ops.member_address_("node"))
            self._slab.free(ops.address_)
            raise
        func.patched = True

    async def _unpatch_func(self, func: Struct) -> None:
        space = self._space
        ops = self.find_ops(func.old_func)
        if ops is None:
            return
        if len(list(self.func_stack(ops))) == 1:
            fops = ops.member_address_("fops")
            await self._ftrace.unregister(fops)
            await self._ftrace.set_filter_ip(
                fops, self._ftrace.location(func.old_func), remove=True
            )
            space.list_del(func.member_address_("stack_node"))
            space.list_del(ops.member_address_("node"))
            self._slab.free(ops.address_)
        else:
            space.list_del(func.member_address_("stack_node"))
        func.patched = False

    async def patch_object(self, obj: Struct) -> None:
        """``klp_patch_object``: all functions of an object, or none. Raises OSError."""
        try:
            for func in klp_for_each_func(self._space, obj):
                await self._patch_func(func)
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
