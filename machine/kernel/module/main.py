# SPDX-License-Identifier: GPL-2.0-or-later
"""Loadable modules: the list of modules, references, loading and unloading. kernel/module/main.c.

`klpfs.machine.kernel.module.check` checks the file of a module.
`klpfs.machine.kernel.module.load` places the module in memory.
`klpfs.machine.kernel.module.sysfs` creates the files under /sys/module.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

from klpfs.machine import limits
from klpfs.machine.image import Export
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.check import LivepatchSupport, ModuleChecks
from klpfs.machine.kernel.module.load import Loader
from klpfs.machine.kernel.module.loaded import MODULE_REF_BASE, LoadedModule, State
from klpfs.machine.kernel.module.memory import ModuleMemory
from klpfs.machine.kernel.module.percpu import ModulePerCpu
from klpfs.machine.kernel.module.relocations import KlpRelocations
from klpfs.machine.kernel.module.subscribers import ModuleSubscribers
from klpfs.machine.kernel.oops.taint import Taint, module_taint_letters
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING
from klpfs.machine.kernel.sched.task import TaskExit, TaskState
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

_log = logging.getLogger(__name__)


_STATE_NAMES: dict[int, str] = {
    State.LIVE: "Live",
    State.COMING: "Loading",
    State.GOING: "Unloading",
}


class Modules:
    """The modules of one kernel."""

    def __init__(
        self,
        base: Base,
        *,
        subscribers: ModuleSubscribers,
        memory: ModuleMemory,
        livepatch: LivepatchSupport,
        klp_relocations: KlpRelocations,
    ) -> None:
        self._space = base.computer.space
        self._symbols = base.computer.symbols
        self._sched = base.sched
        self._printk = base.printk
        self._tainted = base.tainted
        self._dumpstack = base.dumpstack
        self._bugs = base.bugs
        self._subscribers = subscribers
        self._memory = memory
        self._livepatch = livepatch
        self._klp_relocations = klp_relocations
        percpu = ModulePerCpu(base)
        self._checks = ModuleChecks(base, livepatch=livepatch, smp=percpu.smp)
        self._loader = Loader(
            base,
            exports=self,
            memory=memory,
            percpu=percpu,
            klp_apply_relocs=self._klp_apply_relocs,
        )
        self._modules: dict[str, LoadedModule] = {}
        self._list_head = base.computer.symbols.lookup("modules")
        self._kernel_exports = base.computer.image.exports
        if self._list_head:
            self._space.init_list_head(self._list_head)
        base.dumpstack.on_print_modules.append(self.linked_in)

    def _klp_apply_relocs(self, module: LoadedModule) -> None:
        if self._livepatch.enabled:
            self._klp_relocations.klp_apply_object_relocs(module, "vmlinux")

    # -- lookup -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[LoadedModule]:
        """Iterate over the modules, newest first."""
        return reversed(list(self._modules.values()))

    def names(self) -> list[str]:
        """Return the names of the modules, newest first."""
        return [module.name for module in self]

    def find(self, name: str) -> LoadedModule | None:
        """``find_module_all``: return the module ``name`` in any state, or None."""
        return self._modules.get(name)

    def struct_of(self, name: str) -> Struct | None:
        """``find_module``: return the struct module of the module ``name``, or None."""
        module = self._modules.get(name)
        return module.struct if module else None

    def at(self, address: int) -> LoadedModule | None:
        """Return the module whose struct module is at ``address``, or None."""
        placed = (module for module in self._modules.values() if module.placed)
        return next((module for module in placed if module.struct.address_ == address), None)

    def modinfo(self, address: int, tag: str) -> str | None:
        """Return the value of a tag in the modinfo of the module whose struct module is at ``address``, or
        None."""
        module = self.at(address)
        return module.modinfo(tag) if module is not None else None

    def within_module_core(self, address: int, module: int) -> bool:
        """``within_module_core``: return whether ``address`` is in the memory that stays after init of the
        module whose struct module is at ``module``."""
        return self._memory.within_core(address, self._space.view("struct module", module))

    def resolve(self, user: LoadedModule, name: str, *, gpl: bool) -> Export | None:
        """``resolve_symbol``: return the export ``name`` for the module ``user``, which gets a reference to
        the module that exports it. Returns None if there is no export that ``user`` may use. Raises
        OSError(EBUSY) if the module that exports it is not live yet."""
        export = self._kernel_exports.get(name)
        if export is not None:
            return export if gpl or not export.gpl_only else None
        for owner in self._modules.values():
            export = owner.exports.get(name)
            if export is None or owner is user:
                continue
            if export.gpl_only and not gpl:
                return None
            if owner.struct.state != State.LIVE:
                self._printk(
                    LOGLEVEL_WARNING,
                    f"{user.name}: gave up waiting for init of module {owner.name}.",
                )
                raise OSError(errno.EBUSY, f"module {owner.name} is not live")
            self._ref_module(user, owner)
            return export
        return None

    def find_export(self, name: str) -> int | None:
        """``find_symbol``: return the address of an export of the kernel or a module, or None."""
        owners = (self._kernel_exports, *(module.exports for module in self._modules.values()))
        return next((exports[name].addr for exports in owners if name in exports), None)

    def owner_of(self, export: str, *, exclude: LoadedModule) -> str | None:
        """Return the name of the module other than ``exclude`` that exports a symbol, ``kernel``, or
        None."""
        if export in self._kernel_exports:
            return "kernel"
        others = (module for module in self._modules.values() if module is not exclude)
        return next((module.name for module in others if export in module.exports), None)

    def _ref_module(self, user: LoadedModule, owner: LoadedModule) -> None:
        """``ref_module``: give ``user`` a reference to ``owner``, unless it has one."""
        if user not in owner.users:
            owner.users.append(user)
            user.uses.append(owner)
            owner.struct.refcnt.counter += 1

    # -- references -------------------------------------------------------------------------------

    def try_get(self, address: int) -> bool:
        """``try_module_get``: get a reference. Returns False if the module is being unloaded."""
        if not address:
            return True
        module = self._space.view("struct module", address)
        if module.state == State.GOING or module.refcnt.counter == 0:
            return False
        module.refcnt.counter += 1
        return True

    def put(self, address: int) -> None:
        """``module_put``: drop a reference. A WARN if there is none."""
        if not address:
            return
        refcnt = self._space.view("struct module", address).refcnt
        if refcnt.counter > 0:
            refcnt.counter -= 1
        else:
            self._bugs.warn("kernel/module/main.c", 857, "module_put")

    @service("try_module_get")
    def try_module_get(self, address: Ptr) -> int:
        return int(self.try_get(address))

    @service("__module_get")
    def __module_get(self, address: Ptr) -> None:
        if address:
            self._space.view("struct module", address).refcnt.counter += 1

    @service("module_put")
    def module_put(self, address: Ptr) -> None:
        self.put(address)

    @service("__module_put_and_kthread_exit")
    async def __module_put_and_kthread_exit(self, address: Ptr, _code: Ptr) -> None:
        self.put(address)
        raise TaskExit(0)

    @service("__symbol_get")
    def __symbol_get(self, name: Ptr) -> int:
        wanted = self._space.read_string(name)
        export = self._kernel_exports.get(wanted)
        if export is not None:
            return export.addr
        for owner in self._modules.values():
            if wanted in owner.exports and owner.struct.state == State.LIVE:
                owner.struct.refcnt.counter += 1
                return owner.exports[wanted].addr
        return 0

    @service("__symbol_put")
    def __symbol_put(self, name: Ptr) -> None:
        wanted = self._space.read_string(name)
        for owner in self._modules.values():
            if wanted in owner.exports:
                owner.struct.refcnt.counter -= 1
                return

    # -- loading ----------------------------------------------------------------------------------

    async def init_module(self, data: bytes, arguments: str = "", flags: int = 0) -> None:
        """``init_module(2)`` by the current task, ``load_module``: load a file, and run its init function.

        ``arguments``: parameters as one line, ``name=value`` separated by blanks. Raises OSError with the
        errno of the system call after logging the reason; TaskExit if the init function caused an oops,
        which leaves the module in the state COMING.
        """
        if len(arguments) > limits.PARAMETERS:
            raise OSError(errno.E2BIG, "too many parameters")
        module = self._checks.read(data, arguments, flags)
        await self._wait_for_name(module.name)
        self._modules[module.name] = module
        try:
            self._checks.module_sig_check(module)
            self._loader.place(module)
            if self._list_head:
                self._space.list_add(module.struct.member_address_("list"), self._list_head)
            module.struct.refcnt.counter = MODULE_REF_BASE + 1
        except BaseException as error:
            self._deallocate(module)
            if isinstance(error, Exception):
                raise self._load_error(module.name, error) from None
            raise
        try:
            module.struct.state = State.COMING
            await self._subscribers.coming(module)
            await self._do_init_module(module)
        except Exception as error:
            await self._free_module(module)
            raise self._load_error(module.name, error) from None

    def _load_error(self, name: str, error: Exception) -> OSError:
        """Return the OSError for a failed load. Errors in the file that Linux does not check for, and would
        crash on, are logged and become ENOEXEC."""
        if isinstance(error, OSError):
            return error
        if isinstance(error, MemoryError):
            self._printk(LOGLEVEL_WARNING, f"{name}: page allocation failure: order:0")
            return OSError(errno.ENOMEM, str(error))
        if not isinstance(error, PageFault | limits.ListTooLong):
            _log.error("loading %s failed", name, exc_info=error)
        self._printk(LOGLEVEL_ERR, f"{name}: module is malformed: {error}")
        return OSError(errno.ENOEXEC, str(error))

    async def _wait_for_name(self, name: str) -> None:
        """``add_unformed_module``: check that no other module has this name. If such a module is being
        loaded, wait until that is finished, which never happens if its init function caused an oops.
        Raises OSError: EEXIST, EBUSY, ERESTARTSYS."""
        old = self._modules.get(name)
        if old is None:
            return
        if old.struct.state in (State.COMING, State.UNFORMED):
            await old.finished.wait(self._sched.current, TaskState.INTERRUPTIBLE)
        live = name in self._modules and old.struct.state == State.LIVE
        raise OSError(errno.EEXIST if live else errno.EBUSY, f"module {name} exists")

    async def _do_init_module(self, module: LoadedModule) -> None:
        """``do_init_module``: run the init function. Raises OSError if it fails."""
        struct, result = module.struct, 0
        if struct.init:
            function = int(struct.init)

            def on_leak(before: int, after: int, irqs_off: bool) -> None:
                self._warn_of_leak(function, before != after, irqs_off)

            task = self._sched.current
            returned = await task.call(function, on_leak=on_leak) & 0xFFFFFFFF
            result = returned - (1 << 32) if returned >> 31 else returned
        if result < 0:
            struct.state = State.GOING
            await self._sched.synchronize_rcu()
            self.put(struct.address_)
            await self._subscribers.going(module)
            raise OSError(-result, f"init function of {module.name} failed")
        if result > 0:
            self._printk(
                LOGLEVEL_WARNING,
                f"do_init_module: '{module.name}'->init suspiciously returned {result}, it should "
                "follow 0/-E convention\ndo_init_module: loading module anyway...",
            )
            self._dumpstack.dump_stack()
        struct.state = State.LIVE
        await self._subscribers.live(module)
        self.put(struct.address_)
        self._loader.free_init(module)
        module.finished.complete_all()

    def _warn_of_leak(self, function: int, preemption: bool, irqs_off: bool) -> None:
        """Warn about an init function that leaks preemption or interrupts off (``do_one_initcall``)."""
        what = "preemption imbalance " if preemption else ""
        what += "disabled interrupts " if irqs_off else ""
        name = self._symbols.sprint_symbol(function)
        self._bugs.warn(
            "init/main.c", 1310, "do_one_initcall", f"initcall {name} returned with {what}"
        )

    # -- unloading --------------------------------------------------------------------------------

    async def delete_module(self, name: str, *, force: bool = False) -> None:
        """``delete_module(2)``: unload a module. Raises OSError: ENOENT, EBUSY (it is not live, or has no
        exit function and ``force`` is not set), EWOULDBLOCK (in use)."""
        module = self._modules.get(name)
        if module is None:
            raise OSError(errno.ENOENT, f"no module {name}")
        if module.users:
            raise OSError(errno.EWOULDBLOCK, f"{name} is used by {module.users[0].name}")
        if module.struct.state != State.LIVE:
            raise OSError(errno.EBUSY, f"{name} is not live")
        if module.struct.init and not module.struct.exit:
            if not force:
                raise OSError(errno.EBUSY, f"{name} has no exit function")
            self._tainted.add(Taint.FORCED_RMMOD, lockdep_ok=False)
        if module.refcount:
            if not force:
                raise OSError(errno.EWOULDBLOCK, f"{name} is in use")
            self._tainted.add(Taint.FORCED_RMMOD, lockdep_ok=False)
        module.struct.refcnt.counter = 0
        module.struct.state = State.GOING
        if module.struct.exit:
            await self._sched.current.call(module.struct.exit)
        await self._subscribers.going(module)
        await self._free_module(module)

    async def _free_module(self, module: LoadedModule) -> None:
        """``free_module``: remove a module and free its memory."""
        try:
            await self._subscribers.freed(module)
        finally:
            self._deallocate(module)

    def _deallocate(self, module: LoadedModule) -> None:
        """``module_unload_free``, ``module_deallocate``: remove all that loading has registered, drop the
        references to other modules, and free the memory."""
        if self._modules.get(module.name) is module:
            del self._modules[module.name]
        if module.placed and self._list_head and module.struct.list.next:
            self._space.list_del(module.struct.member_address_("list"))
        for owner in module.uses:
            owner.users.remove(module)
            owner.struct.refcnt.counter -= 1
        self._loader.free(module)
        module.finished.complete_all()

    # -- livepatch relocations --------------------------------------------------------------------

    def klp_apply_object_relocs(self, address: int, objname: str) -> None:
        """``klp_apply_object_relocs``: apply the livepatch relocations of the module at ``address`` for one
        object. Raises OSError, after a log line."""
        module = self.at(address)
        if module is not None:
            self._klp_relocations.klp_apply_object_relocs(module, objname)

    def klp_clear_object_relocs(self, address: int, objname: str) -> None:
        """``klp_clear_object_relocs``: undo `klp_apply_object_relocs`."""
        module = self.at(address)
        if module is not None:
            self._klp_relocations.klp_clear_object_relocs(module, objname)

    # -- output -----------------------------------------------------------------------------------

    @staticmethod
    def flags(module: LoadedModule) -> str:
        """``module_flags``: return taints and state in parentheses, or an empty string."""
        letters = module_taint_letters(int(module.struct.taints))
        marks: dict[int, str] = {State.GOING: "-", State.COMING: "+"}
        state = marks.get(int(module.struct.state), "")
        return f"({letters}{state})" if letters or state else ""

    def linked_in(self) -> str:
        """``print_modules``: return the line that lists the modules in reports."""
        names = "".join(f" {module.name}{self.flags(module)}" for module in self if module.placed)
        return f"Modules linked in:{names}"

    def proc_modules(self) -> str:
        """Return the content of /proc/modules (``m_show``)."""
        lines = []
        for module in self:
            struct = module.struct
            if not module.placed or struct.state == State.UNFORMED:
                continue
            users = "".join(f"{user.name}," for user in module.users)
            if struct.init and not struct.exit:
                users += "[permanent],"
            size = self._memory.size(struct, "core") + self._memory.size(struct, "init")
            state = _STATE_NAMES.get(int(struct.state), "Unknown")
            flags = self.flags(module)
            lines.append(
                f"{module.name} {size} {module.refcount} {users or '-'} {state} "
                f"{self._memory.base(struct):#018x}{' ' + flags if flags else ''}\n"
            )
        return "".join(lines)
