# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch core: patches, their objects and functions, from ``klp_enable_patch`` until they are
freed; modules that come and go. kernel/livepatch/core.c."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from klpfs.machine import limits
from klpfs.machine.computer import Computer
from klpfs.machine.kernel.kobject import KobjAttribute, Kobject, kstrtobool
from klpfs.machine.kernel.livepatch.abi import Abi
from klpfs.machine.kernel.livepatch.callbacks import Callbacks
from klpfs.machine.kernel.livepatch.consistency import Consistency
from klpfs.machine.kernel.livepatch.patch import (
    Redirection,
    klp_for_each_func,
    klp_for_each_object,
    object_name,
)
from klpfs.machine.kernel.livepatch.state import States
from klpfs.machine.kernel.livepatch.transition import KLP_PATCHED, KLP_UNPATCHED, Transition
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.kernel.oops.traps import Traps
from klpfs.machine.kernel.printk.printk import (
    LOGLEVEL_ERR,
    LOGLEVEL_NOTICE,
    LOGLEVEL_WARNING,
    Printk,
)
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

MODULE_NAME_LEN, KSYM_NAME_LEN = 56, 512


class Modules(Protocol):
    """What the core asks of the module loader."""

    def struct_of(self, name: str) -> Struct | None:
        """``find_module``: the struct module, also of one that is coming or going."""

    def try_get(self, module: int) -> bool:
        """``try_module_get``."""

    def put(self, module: int) -> None:
        """``module_put``."""

    def klp_apply_object_relocs(self, module: int, object_name: str) -> None:
        """``klp_apply_section_relocs`` for the sections of one object. Raises OSError."""

    def klp_clear_object_relocs(self, module: int, object_name: str) -> None:
        """``klp_clear_object_relocs``."""


class Livepatch:
    """All patches of one kernel. ``mutex`` gives klp_mutex; ``run_later`` queues work."""

    def __init__(
        self,
        computer: Computer,
        slab: Slab,
        printk: Printk,
        traps: Traps,
        redirection: Redirection,
        transition: Transition,
        callbacks: Callbacks,
        consistency: Consistency,
        modules: Modules,
        root: Kobject,
        mutex: Callable[[], AbstractAsyncContextManager[None]],
        run_later: Callable[[Callable[[], Awaitable[None]]], None],
        abi: Abi,
    ) -> None:
        self._computer = computer
        self._space = computer.space
        self._slab = slab
        self._printk = printk
        self._traps = traps
        self.redirection = redirection
        self.transition = transition
        self._callbacks = callbacks
        self.consistency = consistency
        self._modules = modules
        self._root = root
        self._mutex = mutex
        self._run_later = run_later
        self._abi = abi
        self._klp_patches = computer.symbol("klp_patches")
        self._space.init_list_head(self._klp_patches)
        self._kobjects: dict[int, Kobject] = {}
        self.states = States(computer, transition, traps, self.patches)
        transition.on_replaced = self._take_off_replaced

    def patches(self) -> Iterator[Struct]:
        """``klp_for_each_patch``: those enabled or in transition, oldest first."""
        return self._space.list_entries(self._klp_patches, "struct klp_patch", "list")

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """With klp_mutex. A task that dies in a callback dies when it has given that up."""
        with self._callbacks.outlived():
            async with self._mutex():
                yield

    def _is_applied(self, patch: Struct) -> bool:
        """Whether a patch that is on the list changes anything: it is enabled, or in transition."""
        return True

    def _is_in_transition(self, patch: Struct) -> bool:
        current = self.transition.patch
        return current is not None and current.address_ == patch.address_

    def _say(self, level: int, text: str) -> None:
        self._printk(level, f"livepatch: {text}")

    # -- klp_enable_patch -------------------------------------------------------------------------

    @service("klp_enable_patch")
    async def klp_enable_patch(self, address: Ptr) -> int:
        space = self._space
        if not address:
            raise OSError(errno.EINVAL, "no patch")
        patch = space.view("struct klp_patch", address)
        if not patch.mod or not patch.objs:
            raise OSError(errno.EINVAL, "patch without module or objects")
        for obj in self._static_objects(patch):
            if not obj.funcs:
                raise OSError(errno.EINVAL, "object without functions")
        name = patch.mod.name.string()
        if not patch.mod.klp:
            self._say(LOGLEVEL_ERR, f"module {name} is not marked as a livepatch module")
            raise OSError(errno.EINVAL, "not a livepatch module")
        async with self._locked():
            if patch.address_ in self._kobjects:
                # In Linux its lists would be made anew, under those who walk along them.
                self._traps.warn("kernel/livepatch/core.c", 977, "klp_enable_patch")
                raise OSError(errno.EINVAL, "it is enabled")
            if not self.states.is_compatible(patch):
                self._say(
                    LOGLEVEL_ERR,
                    f"Livepatch patch ({name}) is not compatible with the already installed "
                    "livepatches.",
                )
                raise OSError(errno.EINVAL, "incompatible states")
            self.consistency.choose(patch, name)
            if not self._modules.try_get(int(patch.mod)):
                raise OSError(errno.ENODEV, "module is going")
            try:
                self._init_early(patch)
                self._init_patch(patch, name)
                await self._enable(patch, name)
            except (OSError, MemoryError, PageFault, limits.Endless) as error:
                self._free_start(patch)
                self._free_finish(patch)
                if isinstance(error, MemoryError):
                    raise OSError(errno.ENOMEM, "no memory") from None
                raise
        return 0

    def _static_objects(self, patch: Struct) -> Iterator[Struct]:
        for i in range(limits.LIST):
            obj = patch.objs[i]
            if not obj.funcs and not obj.name:
                return
            yield obj
        raise limits.Endless("the objects of a patch")

    def _static_funcs(self, obj: Struct) -> Iterator[Struct]:
        for i in range(limits.LIST):
            func = obj.funcs[i]
            if not (func.old_name or func.new_func or func.old_sympos):
                return
            yield func
        raise limits.Endless("the functions of a patch")

    def _init_early(self, patch: Struct) -> None:
        """``klp_init_patch_early``: what freeing a patch needs is in place."""
        space = self._space
        space.init_list_head(patch.member_address_("list"))
        space.init_list_head(patch.member_address_("obj_list"))
        patch.enabled = patch.forced = False
        for obj in self._static_objects(patch):
            self._init_object_early(patch, obj)
            for func in self._static_funcs(obj):
                space.list_add_tail(func.member_address_("node"), obj.member_address_("func_list"))

    def _init_object_early(self, patch: Struct, obj: Struct) -> None:
        self._space.init_list_head(obj.member_address_("func_list"))
        self._space.list_add_tail(obj.member_address_("node"), patch.member_address_("obj_list"))

    def _init_patch(self, patch: Struct, name: str) -> None:
        kobject = self._add_kobject(patch, self._root, name, self._patch_attributes(patch))
        if patch.replace:
            self._add_nops(patch)
        for obj in klp_for_each_object(self._space, patch):
            self._init_object(patch, obj, kobject)
        self._space.list_add_tail(patch.member_address_("list"), self._klp_patches)

    def _add_kobject(
        self, of: Struct, parent: Kobject, name: str, attributes: Sequence[KobjAttribute] = ()
    ) -> Kobject:
        """``kobject_add``. Raises OSError: EEXIST, EINVAL; after what the log has about it."""
        if not name:
            self._traps.warn(
                "lib/kobject.c", 210, "kobject_add_internal",
                "kobject: ((____ptrval____)): attempted to be registered with empty name!",
            )  # fmt: skip
            raise OSError(errno.EINVAL, "no name")
        try:
            kobject = parent.add(Kobject(name, attributes))
        except OSError as error:
            if error.errno != errno.EEXIST:
                self._printk(
                    LOGLEVEL_ERR,
                    f"kobject_add_internal failed for {name} (error: {-(error.errno or 0)} parent: "
                    f"{parent.name})",
                )
                raise
            path = "/".join((*parent.path, name))
            self._printk(LOGLEVEL_WARNING, f"sysfs: cannot create duplicate filename '/{path}'")
            self._traps.dump_stack()
            self._printk(
                LOGLEVEL_ERR,
                f"kobject_add_internal failed for {name} with -EEXIST, don't try to "
                "register things with the same name in the same directory.",
            )
            raise
        self._kobjects[of.address_] = kobject
        return kobject

    def _init_object(self, patch: Struct, obj: Struct, parent: Kobject) -> None:
        name = object_name(obj)
        if obj.name and len(name) >= MODULE_NAME_LEN:
            raise OSError(errno.EINVAL, "module name too long")
        obj.patched = False
        obj.mod = 0
        if obj.name:
            module = self._modules.struct_of(name)
            if module is not None and module.klp_alive:
                obj.mod = module

        def patched() -> str:
            return f"{int(obj.patched)}\n"

        attributes = [KobjAttribute("patched", patched)]
        kobject = self._add_kobject(
            obj, parent, name, [a for a in attributes if a.name in self._abi.object_attributes]
        )
        for func in klp_for_each_func(self._space, obj):
            self._init_func(func, kobject)
        if obj.mod or not obj.name:
            self._init_object_loaded(patch, obj)

    def _init_func(self, func: Struct, parent: Kobject) -> None:
        if not func.old_name or (not func.new_func and not func.nop):
            raise OSError(errno.EINVAL, "function without a name or a replacement")
        name = func.old_name.string()
        if len(name) >= KSYM_NAME_LEN:
            raise OSError(errno.EINVAL, "function name too long")
        self._space.init_list_head(func.member_address_("stack_node"))
        func.patched = func.transition = False
        directory = self._abi.function_directory.format(name=name, sympos=func.old_sympos or 1)
        self._add_kobject(func, parent, directory)

    def _init_object_loaded(self, patch: Struct, obj: Struct) -> None:
        """``klp_init_object_loaded``: the addresses of its functions are known now."""
        if obj.name:
            self._modules.klp_apply_object_relocs(int(patch.mod), object_name(obj))
        for func in klp_for_each_func(self._space, obj):
            name = func.old_name.string()
            func.old_func = self._find_func(obj, func)
            func.old_size = self._size_of(func.old_func, f"'{name}'")
            if func.nop:
                func.new_func = func.old_func
            func.new_size = self._size_of(func.new_func, f"'{name}' replacement")

    def _find_func(self, obj: Struct, func: Struct) -> int:
        """Where the function is that ``func`` changes. Raises OSError(EINVAL)."""
        module = obj.name.string() if obj.name else None
        return self.klp_find_object_symbol(module, func.old_name.string(), func.old_sympos)

    def klp_find_object_symbol(self, module: str | None, name: str, sympos: int) -> int:
        """``klp_find_object_symbol``: the address of the ``sympos``-th symbol ``name`` of an object (0: it
        must be the only one). Raises OSError(EINVAL)."""
        addresses = self._computer.symbols.all_named(name, module)
        if not addresses:
            self._say(LOGLEVEL_ERR, f"symbol '{name}' not found in symbol table")
        elif len(addresses) > 1 and not sympos:
            sentence = self._abi.ambiguity.format(
                name=name, object=module or "(null)", count=len(addresses)
            )
            self._say(LOGLEVEL_ERR, sentence)
        elif sympos > len(addresses):
            self._say(
                LOGLEVEL_ERR,
                f"symbol position {sympos} for symbol '{name}' in object "
                f"'{module or 'vmlinux'}' not found",
            )
        else:
            return addresses[max(sympos, 1) - 1]
        raise OSError(errno.EINVAL, f"cannot resolve {name}")

    def _size_of(self, address: int, whose: str) -> int:
        found = self._computer.symbols.lookup_address(address)
        if found is None:
            self._say(LOGLEVEL_ERR, f"kallsyms size lookup failed for {whose}")
            raise OSError(errno.ENOENT, "no size")
        return found[0].size

    async def _enable(self, patch: Struct, name: str) -> None:
        """``__klp_enable_patch``."""
        transition = self.transition
        if transition.patch is not None:
            raise OSError(errno.EBUSY, "a transition is under way")
        self._say(LOGLEVEL_NOTICE, f"enabling patch '{name}'")
        transition.init(patch, KLP_PATCHED)
        try:
            for obj in klp_for_each_object(self._space, patch):
                if obj.mod or not obj.name:
                    await self._patch_object(patch, obj)
        except OSError:
            self._say(LOGLEVEL_WARNING, f"failed to enable patch '{name}'")
            await transition.cancel()
            raise
        transition.start()
        patch.enabled = True
        await self._try_complete()

    def _way(self, patch: Struct) -> str:
        return self.consistency.of(patch).redirection

    async def _patch_object(self, patch: Struct, obj: Struct) -> None:
        result = await self._callbacks.pre_patch(obj)
        if result:
            self._say(
                LOGLEVEL_WARNING, f"pre-patch callback failed for object '{object_name(obj)}'"
            )
            raise OSError(-result, "pre-patch callback")
        try:
            await self.redirection.patch_object(obj, self._way(patch))
        except OSError:
            self._say(LOGLEVEL_WARNING, f"failed to patch object '{object_name(obj)}'")
            raise

    async def _try_complete(self) -> None:
        """Let the transition go as far as it can, and free what it leaves unused."""
        patch = await self.transition.try_complete()
        if patch is not None:
            self._completed(patch)

    def _completed(self, patch: Struct) -> None:
        """Free what nothing uses any more."""
        if not patch.enabled:
            self._free_async(patch)
        elif patch.replace:
            for old in self.patches():
                if old.address_ == patch.address_:
                    break
                self._free_async(old)

    async def transition_work(self) -> None:
        """``klp_transition_work_fn``: the next try, a second later."""
        async with self._locked():
            if self.transition.patch is not None:
                await self._try_complete()

    # -- disabling, reversing, forcing ------------------------------------------------------------

    def _patch_attributes(self, patch: Struct) -> list[KobjAttribute]:
        def show_enabled() -> str:
            return f"{int(patch.enabled)}\n"

        def show_transition() -> str:
            return f"{int(self._is_in_transition(patch))}\n"

        def show_replace() -> str:
            return f"{int(patch.replace)}\n"

        def show_stack_order() -> str:
            order = [installed.address_ for installed in self.patches()]
            return f"{order.index(patch.address_) + 1 if patch.address_ in order else -1}\n"

        async def store_enabled(data: bytes) -> None:
            await self._store_enabled(patch, self._enabled_from(data))

        async def store_force(data: bytes) -> None:
            if kstrtobool(data):
                await self._force(patch)

        attributes = [
            KobjAttribute("enabled", show_enabled, store_enabled),
            KobjAttribute("transition", show_transition),
            KobjAttribute("force", None, store_force),
            KobjAttribute("replace", show_replace),
            KobjAttribute("stack_order", show_stack_order),
        ]
        return [a for a in attributes if a.name in self._abi.patch_attributes]

    @staticmethod
    def _enabled_from(data: bytes) -> bool:
        """What was written to ``enabled``. Raises OSError(EINVAL)."""
        return kstrtobool(data)

    async def _store_enabled(self, patch: Struct, enabled: bool) -> None:
        async with self._locked():
            if bool(patch.enabled) == enabled:
                raise OSError(errno.EINVAL, "already in the requested state")
            if self._is_in_transition(patch):
                await self.transition.reverse()
            elif not enabled:
                await self._disable(patch)
            else:
                raise OSError(errno.EINVAL, "a disabled patch cannot be enabled again")

    async def _disable(self, patch: Struct) -> None:
        """``__klp_disable_patch``."""
        if self.transition.patch is not None:
            raise OSError(errno.EBUSY, "a transition is under way")
        self.transition.init(patch, KLP_UNPATCHED)
        for obj in klp_for_each_object(self._space, patch):
            if obj.patched:
                await self._callbacks.pre_unpatch(obj)
        self.transition.start()
        patch.enabled = False
        await self._try_complete()

    async def _force(self, patch: Struct) -> None:
        """``force_store``."""
        async with self._locked():
            if not self._is_in_transition(patch):
                raise OSError(errno.EINVAL, "this patch is not in transition")
            self.transition.force()
            if self.transition.target_state == KLP_UNPATCHED:
                patch.forced = True
            elif patch.replace:
                for other in self.patches():
                    if other.address_ != patch.address_:
                        other.forced = True

    # -- atomic replace ---------------------------------------------------------------------------

    def _add_nops(self, patch: Struct) -> None:
        """``klp_add_nops``: a function that only an older patch touches goes back to the original."""
        for old_patch in self.patches():
            for old_obj in klp_for_each_object(self._space, old_patch):
                obj = self._find_object(patch, old_obj) or self._new_object(patch, old_obj)
                present = {self._key(func) for func in klp_for_each_func(self._space, obj)}
                for old_func in klp_for_each_func(self._space, old_obj):
                    if self._key(old_func) not in present:
                        self._new_nop(obj, old_func)

    def _find_object(self, patch: Struct, like: Struct) -> Struct | None:
        name = object_name(like)
        for obj in klp_for_each_object(self._space, patch):
            if bool(obj.name) == bool(like.name) and object_name(obj) == name:
                return obj
        return None

    @staticmethod
    def _key(func: Struct) -> tuple[str, int]:
        """What ``klp_find_func`` compares. A function without a name is refused a little later."""
        name = func.old_name.string() if func.old_name else ""
        return name, max(func.old_sympos, 1)

    def _kstrdup(self, text: str) -> int:
        data = text.encode("utf-8", "surrogateescape") + b"\0"
        address = self._slab.alloc(len(data), "livepatch")
        self._computer.memory.write(address, data)
        return address

    def _new(self, type_name: str) -> Struct:
        size = self._space.types.sizeof(type_name)
        made: Struct = self._space.view(type_name, self._slab.alloc(size, "livepatch"))
        return made

    def _new_object(self, patch: Struct, like: Struct) -> Struct:
        obj = self._new("struct klp_object")
        if like.name:
            obj.name = self._kstrdup(object_name(like))
        self._init_object_early(patch, obj)
        obj.dynamic = True
        return obj

    def _new_nop(self, obj: Struct, like: Struct) -> None:
        func = self._new("struct klp_func")
        func.old_name = self._kstrdup(like.old_name.string())
        func.old_sympos = like.old_sympos
        func.nop = True
        self._space.list_add_tail(func.member_address_("node"), obj.member_address_("func_list"))

    async def _take_off_replaced(self, patch: Struct) -> None:
        """``klp_unpatch_replaced_patches`` and ``klp_discard_nops``."""
        for old in self.patches():
            if old.address_ == patch.address_:
                break
            old.enabled = False
            await self.redirection.unpatch_objects(old)
        await self.redirection.unpatch_objects(patch, nops_only=True)
        self._free_objects(patch, nops_only=True)

    # -- freeing ----------------------------------------------------------------------------------

    def _drop_kobject(self, address: int) -> None:
        kobject = self._kobjects.pop(address, None)
        if kobject is not None:
            kobject.delete()

    def _free_objects(self, patch: Struct, *, nops_only: bool = False) -> None:
        for obj in klp_for_each_object(self._space, patch):
            for func in klp_for_each_func(self._space, obj):
                if func.nop or not nops_only:
                    self._space.list_del(func.member_address_("node"))
                    self._drop_kobject(func.address_)
                    if func.nop:
                        self._slab.free(int(func.old_name))
                        self._slab.free(func.address_)
            if obj.dynamic or not nops_only:
                self._space.list_del(obj.member_address_("node"))
                self._drop_kobject(obj.address_)
                if obj.dynamic:
                    self._slab.free(int(obj.name))
                    self._slab.free(obj.address_)

    def _free_start(self, patch: Struct) -> None:
        self.consistency.forget(patch)
        if not self._space.list_empty(patch.member_address_("list")):
            self._space.list_del(patch.member_address_("list"))
        self._free_objects(patch)

    def _free_finish(self, patch: Struct) -> None:
        self._drop_kobject(patch.address_)
        if not patch.forced:
            self._modules.put(int(patch.mod))

    def _free_async(self, patch: Struct) -> None:
        """``klp_free_patch_async``: its directory goes when nobody writes in it any more."""
        self._free_start(patch)

        async def finish() -> None:
            self._free_finish(patch)

        self._run_later(finish)

    # -- modules come and go ----------------------------------------------------------------------

    async def module_coming(self, module: Struct) -> None:
        """``klp_module_coming``: patch a module before its init runs. Raises OSError: the module is
        refused."""
        name = module.name.string()
        if name == "vmlinux":
            self._say(LOGLEVEL_ERR, "vmlinux.ko: invalid module name")
            raise OSError(errno.EINVAL, "invalid module name")
        async with self._locked():
            module.klp_alive = True
            for patch in self.patches():
                obj = self._object_for(patch, name)
                if obj is None:
                    continue
                obj.mod = module
                try:
                    await self._apply_to_coming(patch, obj, name)
                except (OSError, PageFault, limits.Endless):
                    self._say(
                        LOGLEVEL_WARNING,
                        f"patch '{patch.mod.name.string()}' failed for module '{name}', "
                        f"refusing to load module '{name}'",
                    )
                    module.klp_alive = False
                    self._free_object_loaded(patch, obj)
                    await self._cleanup_module(name, limit=patch)
                    raise

    def _object_for(self, patch: Struct, module: str) -> Struct | None:
        return next(
            (
                obj
                for obj in klp_for_each_object(self._space, patch)
                if obj.name and object_name(obj) == module
            ),
            None,
        )

    async def _apply_to_coming(self, patch: Struct, obj: Struct, module: str) -> None:
        patch_name = patch.mod.name.string()
        try:
            self._init_object_loaded(patch, obj)
        except OSError as error:
            self._say(
                LOGLEVEL_WARNING,
                f"failed to initialize patch '{patch_name}' for module '{module}' "
                f"({-(error.errno or 0)})",
            )
            raise
        if not self._is_applied(patch):
            return
        self._say(LOGLEVEL_NOTICE, f"applying patch '{patch_name}' to loading module '{module}'")
        result = await self._callbacks.pre_patch(obj)
        if result:
            self._say(LOGLEVEL_WARNING, f"pre-patch callback failed for object '{module}'")
            raise OSError(-result if result < 0 else errno.EINVAL, "pre-patch callback")
        try:
            await self.redirection.patch_object(obj, self._way(patch))
        except OSError as error:
            self._say(
                LOGLEVEL_WARNING,
                f"failed to apply patch '{patch_name}' to module '{module}' "
                f"({-(error.errno or 0)})",
            )
            await self._callbacks.post_unpatch(obj)
            raise
        if self._is_in_transition(patch):
            self.transition.module_joined()
        else:
            await self._callbacks.post_patch(obj)

    async def module_going(self, module: Struct) -> None:
        """``klp_module_going``: the patches of a module that goes are reverted."""
        async with self._locked():
            module.klp_alive = False
            await self._cleanup_module(module.name.string(), limit=None)
            for patch in self.patches():
                if patch.mod == module.address_:
                    await self._abandon(patch)

    async def _abandon(self, patch: Struct) -> None:
        """The code of a patch goes while the patch is on: its init failed after klp_enable_patch, or
        it was removed by force. Linux would go on to run what is not there."""
        self._say(
            LOGLEVEL_WARNING, f"the module of patch '{patch.mod.name.string()}' goes, reverting it"
        )
        if self._is_in_transition(patch):
            await self.transition.cancel()
        patch.enabled = False
        await self.redirection.unpatch_objects(patch)
        self._free_start(patch)
        self._drop_kobject(patch.address_)

    async def _cleanup_module(self, name: str, *, limit: Struct | None) -> None:
        for patch in self.patches():
            if limit is not None and patch.address_ == limit.address_:
                break
            obj = self._object_for(patch, name)
            if obj is None:
                continue
            if self._is_applied(patch):
                await self._revert(patch, obj, name)
            self._free_object_loaded(patch, obj)

    async def _revert(self, patch: Struct, obj: Struct, module: str) -> None:
        if not self._is_in_transition(patch):
            await self._callbacks.pre_unpatch(obj)
        self._say(
            LOGLEVEL_NOTICE,
            f"reverting patch '{patch.mod.name.string()}' on unloading module '{module}'",
        )
        await self.redirection.unpatch_object(obj)
        await self._callbacks.post_unpatch(obj)

    def _free_object_loaded(self, patch: Struct, obj: Struct) -> None:
        """``klp_clear_object_relocs`` (since 6.3) and ``klp_free_object_loaded``: as before its module
        came, so that it can come again."""
        if self._abi.clears_relocations:
            self._modules.klp_clear_object_relocs(int(patch.mod), object_name(obj))
        obj.mod = 0
        for func in klp_for_each_func(self._space, obj):
            func.old_func = 0
            if func.nop:
                func.new_func = 0
