# SPDX-License-Identifier: GPL-2.0-or-later
"""Patching functions: one ``klp_ops`` for each patched function, with the stack of its replacements.
kernel/livepatch/patch.c."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Literal

from klpfs.machine.kernel.livepatch.common import Common
from klpfs.machine.kernel.livepatch.objects import klp_for_each_func, klp_for_each_object
from klpfs.machine.kernel.livepatch.redirection import Redirection
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING
from klpfs.machine.structs import Struct

RedirectionName = Literal["ftrace", "jump"]


class PatchedFunctions:
    """The patched functions of one kernel: ``klp_ops``.

    All patches of a function redirect it in the same way, for one way overwrites what the other needs.
    """

    def __init__(
        self,
        common: Common,
        redirections: Mapping[RedirectionName, Redirection],
    ) -> None:
        self._space = common.space
        self._slab = common.base.slab
        self._messages = common.messages
        self._bugs = common.base.bugs
        self._printk = common.base.printk
        self._redirections = redirections
        self._klp_ops = common.base.computer.symbol("klp_ops")
        self._space.init_list_head(self._klp_ops)
        self._ops_of: dict[int, int] = {}  # the entries of klp_ops, by old_func
        self._redirection_of: dict[int, RedirectionName] = {}
        self._stuck: list[int] = []
        """The entries that `klp_unpatch_func` could not remove. Their function may move: Linux compares with
        the ``old_func`` of the first replacement."""

    # -- the stacks -------------------------------------------------------------------------------

    def klp_find_ops(self, old_func: int) -> Struct | None:
        """Return the ops of the function at ``old_func``, or None if it is not patched."""
        address = self._ops_of.get(old_func) or self._find_stuck(old_func)
        return self._space.view("struct klp_ops", address) if address else None

    def _find_stuck(self, old_func: int) -> int | None:
        for address in self._stuck:
            if self._first(address).old_func == old_func:
                return address
        return None

    def _first(self, address: int) -> Struct:
        return next(self.func_stack(self._space.view("struct klp_ops", address)))

    def module_freed(self, name: str, memory: range) -> None:
        """Drop the entries that could not be removed and whose function is in ``memory``, which is freed.
        Linux would read it again at the next change of a patch."""
        for address in list(self._stuck):
            if self._first(address).address_ in memory:
                self._stuck.remove(address)
                ops = self._space.view("struct klp_ops", address)
                self._space.list_del(ops.member_address_("node"))
                self._printk(
                    LOGLEVEL_WARNING,
                    f"klpfs: klp_ops has a function of '{name}', which is freed: removed; Linux "
                    "would use it after free",
                )

    def func_stack(self, ops: Struct) -> Iterator[Struct]:
        """Yield the replacements of one function, the newest first."""
        head = ops.member_address_("func_stack")
        return self._space.list_entries(head, "struct klp_func", "stack_node")

    def previous(self, func: Struct) -> Struct | None:
        """Return the replacement that is under ``func`` on its stack, or None if that is the original."""
        ops = self._ops(func)
        following = int(func.stack_node.next)
        if following == ops.member_address_("func_stack"):
            return None
        under: Struct = self._space.container_of(following, "struct klp_func", "stack_node")
        return under

    def select(self, func: Struct, *, new: bool) -> None:
        """Lead callers of a patched function to ``func``, or to what is under it, if ``func`` is at the
        top of its stack."""
        if next(self.func_stack(self._ops(func))) == func:
            version = func if new else self.previous(func)
            address = int(func.old_func if version is None else version.new_func)
            self._redirection(func).select(func, address)

    def _ops(self, func: Struct) -> Struct:
        ops = self.klp_find_ops(func.old_func)
        assert ops is not None, "a patched function has an ops"
        return ops

    def _redirection(self, func: Struct) -> Redirection:
        return self._redirections[self._redirection_of.get(int(func.old_func), "ftrace")]

    # -- functions --------------------------------------------------------------------------------

    async def klp_patch_func(self, func: Struct, redirection: RedirectionName) -> None:
        """Put a function on its stack. Raises OSError, after a log line."""
        space, old_func = self._space, int(func.old_func)
        if not old_func:
            self._warn_on(165, "klp_patch_func")
            raise OSError(errno.EINVAL, "the function has no address")
        if func.patched:
            self._warn_on(168, "klp_patch_func")
            raise OSError(errno.EINVAL, "the function is patched")
        ops = self.klp_find_ops(old_func)
        if ops is not None:
            self._check_redirection(func, redirection)
            space.list_add(func.member_address_("stack_node"), ops.member_address_("func_stack"))
        else:
            ops = self._alloc_ops()
            space.list_add(ops.member_address_("node"), self._klp_ops)
            space.init_list_head(ops.member_address_("func_stack"))
            space.list_add(func.member_address_("stack_node"), ops.member_address_("func_stack"))
            self._ops_of[old_func], self._redirection_of[old_func] = ops.address_, redirection
            try:
                await self._redirection(func).install(func, ops)
            except OSError:
                self._free_ops(func, ops)
                raise
        func.patched = True
        if not func.transition:
            self.select(func, new=True)

    def _check_redirection(self, func: Struct, redirection: RedirectionName) -> None:
        present = self._redirection_of.get(int(func.old_func), "ftrace")
        if present != redirection:
            self._messages.pr_err(
                f"function '{func.old_name.string()}' is redirected by {present} "
                f"and cannot be redirected by {redirection}"
            )
            raise OSError(errno.EBUSY, "redirected in another way")

    def _alloc_ops(self) -> Struct:
        size = self._space.types.sizeof("struct klp_ops")
        try:
            ops: Struct = self._space.view("struct klp_ops", self._slab.alloc(size, "klp_ops"))
        except MemoryError:
            raise OSError(errno.ENOMEM, "no memory for a klp_ops") from None
        return ops

    def _free_ops(self, func: Struct, ops: Struct) -> None:
        """Take the last replacement off the stack and free the ops."""
        self._space.list_del(func.member_address_("stack_node"))
        self._space.list_del(ops.member_address_("node"))
        if ops.address_ in self._stuck:
            self._stuck.remove(ops.address_)
        else:
            del self._ops_of[int(func.old_func)], self._redirection_of[int(func.old_func)]
        self._slab.free(ops.address_)

    async def klp_unpatch_func(self, func: Struct) -> None:
        """Take a function off its stack. A function without a call site stays there, after a WARN: it was in
        the memory of a module's init, which has been freed."""
        if not func.patched:
            return self._warn_on(131, "klp_unpatch_func")
        if not func.old_func:
            return self._warn_on(133, "klp_unpatch_func")
        ops = self.klp_find_ops(func.old_func)
        if ops is None:
            return self._warn_on(137, "klp_unpatch_func")
        if self._space.list_is_singular(ops.member_address_("func_stack")):
            if not await self._redirection(func).remove(func, ops):
                self._keep(func, ops)
                return None
            self._free_ops(func, ops)
        else:
            self.select(func, new=False)
            self._space.list_del_rcu(func.member_address_("stack_node"))
        func.patched = False
        return None

    def _keep(self, func: Struct, ops: Struct) -> None:
        """Note an entry of ``klp_ops`` that stays without a call site."""
        if ops.address_ not in self._stuck:
            del self._ops_of[int(func.old_func)], self._redirection_of[int(func.old_func)]
            self._stuck.append(ops.address_)

    def _warn_on(self, line: int, function: str) -> None:
        self._bugs.warn("kernel/livepatch/patch.c", line, function)

    # -- objects ----------------------------------------------------------------------------------

    async def klp_patch_object(self, obj: Struct, redirection: RedirectionName) -> None:
        """Put all functions of an object on their stacks, or none. Raises OSError, after a log line."""
        if obj.patched:
            self._warn_on(257, "klp_patch_object")
            raise OSError(errno.EINVAL, "the object is patched")
        try:
            for func in klp_for_each_func(self._space, obj):
                await self.klp_patch_func(func, redirection)
        except OSError:
            await self.klp_unpatch_object(obj)
            raise
        obj.patched = True

    async def klp_unpatch_object(self, obj: Struct) -> None:
        """Take the functions of an object off their stacks."""
        await self.__klp_unpatch_object(obj, nops_only=False)

    async def __klp_unpatch_object(self, obj: Struct, *, nops_only: bool) -> None:
        for func in klp_for_each_func(self._space, obj):
            if func.patched and (func.nop or not nops_only):
                await self.klp_unpatch_func(func)
        if obj.dynamic or not nops_only:
            obj.patched = False

    async def klp_unpatch_objects(self, patch: Struct) -> None:
        """Take all functions of a patch off their stacks."""
        await self.__klp_unpatch_objects(patch, nops_only=False)

    async def klp_unpatch_objects_dynamic(self, patch: Struct) -> None:
        """Take the nops of a patch off their stacks."""
        await self.__klp_unpatch_objects(patch, nops_only=True)

    async def __klp_unpatch_objects(self, patch: Struct, *, nops_only: bool) -> None:
        for obj in klp_for_each_object(self._space, patch):
            if obj.patched:
                await self.__klp_unpatch_object(obj, nops_only=nops_only)
