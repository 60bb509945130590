# SPDX-License-Identifier: GPL-2.0-or-later
"""Loadable modules: the list of them, references, loading and unloading. kernel/module/main.c.

Putting a file into memory is `klpfs.machine.kernel.module.load`; the files under /sys/module are
`klpfs.machine.kernel.module.sysfs`.
"""

from __future__ import annotations

import enum
import errno
import logging
from collections.abc import Iterator, Mapping

from klpfs.machine import limits
from klpfs.machine.computer import Computer
from klpfs.machine.image import Export
from klpfs.machine.kernel.kobject import KobjectTree
from klpfs.machine.kernel.module.livepatch import LivepatchHooks
from klpfs.machine.kernel.module.load import MODULE_REF_BASE, LoadedModule, Loader
from klpfs.machine.kernel.module.params import Params
from klpfs.machine.kernel.module.relocations import KlpRelocations
from klpfs.machine.kernel.module.sysfs import ModuleSysfs
from klpfs.machine.kernel.oops.taint import Taint, Tainted, module_taint_letters
from klpfs.machine.kernel.oops.traps import Traps
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING, Printk
from klpfs.machine.kernel.sched.core import Scheduler, TaskExit, TaskState
from klpfs.machine.kernel.sched.stacktrace import StackTrace
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.kernel.trace.ftrace import Ftrace
from klpfs.machine.kernel.trace.jump_label import JumpLabels
from klpfs.machine.memory import PageFault
from klpfs.machine.structs import Struct

IGNORE_MODVERSIONS, IGNORE_VERMAGIC = 1, 2
"""Flags of finit_module(2), include/uapi/linux/module.h."""


_log = logging.getLogger(__name__)


class State(enum.IntEnum):
    """``enum module_state``."""

    LIVE = 0
    COMING = 1
    GOING = 2
    UNFORMED = 3


_STATE_NAMES: dict[int, str] = {
    State.LIVE: "Live",
    State.COMING: "Loading",
    State.GOING: "Unloading",
}


class Modules:
    """The modules of one kernel.

    ``livepatch_enabled``: whether the kernel has live patching (CONFIG_LIVEPATCH).
    ``livepatch_marked``: whether a module says in its modinfo that it is a live patch.
    """

    def __init__(
        self,
        computer: Computer,
        sched: Scheduler,
        printk: Printk,
        tainted: Tainted,
        traps: Traps,
        ftrace: Ftrace,
        jump_labels: JumpLabels,
        stack: StackTrace,
        params: Params,
        kobjects: KobjectTree,
        *,
        livepatch_enabled: bool,
        livepatch_marked: bool,
    ) -> None:
        self._space = computer.space
        self._symbols = computer.symbols
        self._sched = sched
        self._printk = printk
        self._tainted = tainted
        self._traps = traps
        self._ftrace = ftrace
        self._jump_labels = jump_labels
        self._stack = stack
        self._params = params
        self.klp_relocations = KlpRelocations(computer, printk, self._find_klp_symbol)
        self._loader = Loader(
            computer,
            printk,
            tainted,
            self,
            self._relocate_klp,
            livepatch_enabled=livepatch_enabled,
            livepatch_marked=livepatch_marked,
        )
        self._sysfs = ModuleSysfs(computer.space, printk, params, kobjects)
        self._modules: dict[str, LoadedModule] = {}
        self._list_head = computer.symbols.lookup("modules")
        self.kernel_exports: Mapping[str, Export] = {}
        """What the kernel itself exports; set when it is put together."""
        self.livepatch: LivepatchHooks
        """The livepatch core; set when the kernel is put together."""
        if self._list_head:
            self._space.init_list_head(self._list_head)
        traps.modules_linked_in = self.linked_in

    def _relocate_klp(self, module: LoadedModule) -> None:
        self.klp_relocations.klp_apply_object_relocs(module, "vmlinux")

    def _find_klp_symbol(self, objname: str | None, name: str, sympos: int) -> int:
        return self.livepatch.klp_find_object_symbol(objname, name, sympos)

    # -- finding ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[LoadedModule]:
        """The modules, the newest first."""
        return reversed(list(self._modules.values()))

    def names(self) -> list[str]:
        """The names of the modules, the newest first."""
        return [module.name for module in self]

    def find(self, name: str) -> LoadedModule | None:
        """``find_module_all``: in whatever state it is."""
        return self._modules.get(name)

    def struct_of(self, name: str) -> Struct | None:
        """``find_module``: the struct module of one that is at least formed."""
        module = self._modules.get(name)
        return module.struct if module else None

    def at(self, address: int) -> LoadedModule | None:
        """The module whose struct module is at ``address``."""
        placed = (module for module in self._modules.values() if module.placed)
        return next((module for module in placed if module.struct.address_ == address), None)

    def modinfo(self, address: int, tag: str) -> str | None:
        """Return the value of a tag in the modinfo of the module whose struct module is at ``address``, or
        None."""
        module = self.at(address)
        return module.modinfo(tag) if module is not None else None

    def resolve(self, user: LoadedModule, name: str, *, gpl: bool) -> Export | None:
        """``resolve_symbol``: the export of that name; ``user`` then holds on to the module that has
        it. None if there is none that it may use. Raises OSError(EBUSY) if that is not ready."""
        export = self.kernel_exports.get(name)
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
                raise OSError(errno.EBUSY, "its module is not ready")
            self._use(user, owner)
            return export
        return None

    def find_export(self, name: str) -> int | None:
        """``find_symbol``: the address of what the kernel or a module exports."""
        owners = (self.kernel_exports, *(module.exports for module in self._modules.values()))
        return next((exports[name].addr for exports in owners if name in exports), None)

    def owner_of(self, export: str, *, but: LoadedModule) -> str | None:
        """Who else exports a symbol: the name of a module, ``kernel``, or nobody."""
        if export in self.kernel_exports:
            return "kernel"
        others = (module for module in self._modules.values() if module is not but)
        return next((module.name for module in others if export in module.exports), None)

    def _use(self, user: LoadedModule, owner: LoadedModule) -> None:
        """``ref_module``."""
        if user not in owner.users:
            owner.users.append(user)
            user.uses.append(owner)
            owner.struct.refcnt.counter += 1

    # -- references -------------------------------------------------------------------------------

    def try_get(self, address: int) -> bool:
        """``try_module_get``: false for a module that goes."""
        if not address:
            return True
        module = self._space.view("struct module", address)
        if module.state == State.GOING or module.refcnt.counter == 0:
            return False
        module.refcnt.counter += 1
        return True

    def put(self, address: int) -> None:
        """``module_put``."""
        if address:
            self._space.view("struct module", address).refcnt.counter -= 1

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
        export = self.kernel_exports.get(wanted)
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
        """``init_module(2)`` by the current task: load a file, run its init.

        ``arguments``: ``name=value`` ... as one line. Raises OSError as the system call would, after
        a line in the log; TaskExit if the init oopsed, which leaves the module "coming".
        """
        if len(arguments) > limits.PARAMETERS:
            raise OSError(errno.E2BIG, "too many parameters")
        module = self._loader.read(data, flags)
        await self._wait_for_place(module.name)
        self._modules[module.name] = module
        try:
            self._loader.place(module)
            if self._list_head:
                self._space.list_add(module.struct.member_address_("list"), self._list_head)
            module.struct.refcnt.counter = MODULE_REF_BASE + 1
        except BaseException as error:
            self._forget(module)
            if isinstance(error, Exception):
                raise self._refusal(module.name, error) from None
            raise
        try:
            await self._come(module, arguments)
            await self._run_init(module)
        except Exception as error:
            await self._free_module(module)
            raise self._refusal(module.name, error) from None

    def _refusal(self, name: str, error: Exception) -> OSError:
        """What the system call returns. Where the kernel would trust the file, and fall over it, there is
        a line in the log."""
        if isinstance(error, OSError):
            return error
        if isinstance(error, MemoryError):
            self._printk(LOGLEVEL_WARNING, f"{name}: page allocation failure: order:0")
            return OSError(errno.ENOMEM, str(error))
        if not isinstance(error, PageFault | limits.Endless):
            _log.error("loading %s failed", name, exc_info=error)
        self._printk(LOGLEVEL_ERR, f"{name}: module is malformed: {error}")
        return OSError(errno.ENOEXEC, str(error))

    async def _wait_for_place(self, name: str) -> None:
        """``add_unformed_module``: there is one of that name at most. If it is on its way in, how that
        ends is waited for: for ever, if its init has died. Raises OSError: EEXIST, EBUSY, ERESTARTSYS."""
        old = self._modules.get(name)
        if old is None:
            return
        if old.struct.state in (State.COMING, State.UNFORMED):
            await old.finished.wait(self._sched.current, TaskState.INTERRUPTIBLE)
        live = name in self._modules and old.struct.state == State.LIVE
        raise OSError(errno.EEXIST if live else errno.EBUSY, f"there is a {name}")

    async def _come(self, module: LoadedModule, arguments: str) -> None:
        """From ``complete_formation`` to the point where init may run."""
        module.struct.state = State.COMING
        self._symbols.add_module(module.name, module.symbols, module.regions)
        self._ftrace.add_sites(module.ftrace_sites)
        if module.bug_table:
            self._traps.bug_tables.append(module.bug_table)
        self._jump_labels.add(module.jump_table)
        self._stack.add_module(module.name, *module.orc_tables)
        if module.exception_table[0]:
            self._traps.exception_tables.add(*module.exception_table)
        await self.livepatch.module_coming(module.struct)
        try:
            await self._notify(module, State.COMING)
        except Exception:
            await self.livepatch.module_going(module.struct)
            raise
        try:
            await self._params.parse(module.name, arguments, module.params(self._space))
            self._sysfs.add(module)
        except Exception:
            module.struct.state = State.GOING
            await self._notify(module, State.GOING)
            await self.livepatch.module_going(module.struct)
            raise

    async def _notify(self, module: LoadedModule, state: State) -> None:
        """Call the module notifiers; while coming, one may refuse."""
        symbol = self._symbols.lookup
        chain = symbol("blocking_notifier_call_chain")
        head = symbol("module_notify_list")
        if not chain or not head:
            return
        call, struct = self._sched.current.call, module.struct.address_
        robust = symbol("blocking_notifier_call_chain_robust")
        if state is State.COMING and robust:
            result = await call(robust, head, State.COMING, State.GOING, struct)
            stop_mask = 0x8000
            if result & stop_mask:
                raise OSError((result & ~stop_mask) - 1, "a notifier refuses the module")
        else:
            await call(chain, head, state, struct)

    async def _run_init(self, module: LoadedModule) -> None:
        """``do_init_module``."""
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
            await self._notify(module, State.GOING)
            await self.livepatch.module_going(struct)
            raise OSError(-result, f"init of {module.name}")
        if result > 0:
            self._printk(
                LOGLEVEL_WARNING,
                f"do_init_module: '{module.name}'->init suspiciously returned {result}, it should "
                "follow 0/-E convention\ndo_init_module: loading module anyway...",
            )
            self._traps.dump_stack()
        struct.state = State.LIVE
        await self._notify(module, State.LIVE)
        self.put(struct.address_)
        self._ftrace.remove_sites(module.init_base, module.init_base + module.init_size)
        self._loader.free_init(module)
        self._symbols.add_module(module.name, module.core_symbols, module.regions)
        module.finished.happen()

    def _warn_of_leak(self, function: int, preemption: bool, irqs_off: bool) -> None:
        """``do_one_initcall``"""
        what = "preemption imbalance " if preemption else ""
        what += "disabled interrupts " if irqs_off else ""
        name = self._symbols.sprint_symbol(function)
        self._traps.warn(
            "init/main.c", 1310, "do_one_initcall", f"initcall {name} returned with {what}"
        )

    # -- unloading --------------------------------------------------------------------------------

    async def delete_module(self, name: str, *, force: bool = False) -> None:
        """``delete_module(2)``. Raises OSError: ENOENT, EBUSY (loading, going, or it has no exit and
        is not forced), EWOULDBLOCK (in use)."""
        module = self._modules.get(name)
        if module is None:
            raise OSError(errno.ENOENT, f"no module {name}")
        if module.users:
            raise OSError(errno.EWOULDBLOCK, f"{name} is used by {module.users[0].name}")
        if module.struct.state != State.LIVE:
            raise OSError(errno.EBUSY, f"{name} is not live")
        if module.struct.init and not module.struct.exit:
            if not force:
                raise OSError(errno.EBUSY, f"{name} has no exit")
            self._tainted.add(Taint.FORCED_RMMOD, lockdep_ok=False)
        if module.refcount:
            if not force:
                raise OSError(errno.EWOULDBLOCK, f"{name} is in use")
            self._tainted.add(Taint.FORCED_RMMOD, lockdep_ok=False)
        module.struct.refcnt.counter = 0
        module.struct.state = State.GOING
        if module.struct.exit:
            await self._sched.current.call(module.struct.exit)
        await self._notify(module, State.GOING)
        await self.livepatch.module_going(module.struct)
        await self._free_module(module)

    async def _free_module(self, module: LoadedModule) -> None:
        """``free_module``."""
        await self._sysfs.remove(module, self._sched.current)
        try:
            await self._params.destroy(module.params(self._space))
        except (PageFault, limits.Endless) as error:
            self._printk(
                LOGLEVEL_ERR, f"{module.name}: its parameters are not what they were: {error}"
            )
        finally:
            self._forget(module)

    def _forget(self, module: LoadedModule) -> None:
        """As if it had never been there."""
        if self._modules.get(module.name) is module:
            del self._modules[module.name]
        if module.placed:
            self._ftrace.remove_sites(module.core_base, module.core_base + module.core_size)
            self._ftrace.remove_sites(module.init_base, module.init_base + module.init_size)
            if module.bug_table in self._traps.bug_tables:
                self._traps.bug_tables.remove(module.bug_table)
            self._traps.exception_tables.remove(module.exception_table[0])
            self._jump_labels.remove(module.jump_table)
            self._stack.remove_module(module.name)
            if module.struct.state != State.UNFORMED:
                self._symbols.remove_module(module.name)
            if self._list_head and module.struct.list.next:
                self._space.list_del(module.struct.member_address_("list"))
        for owner in module.uses:
            owner.users.remove(module)
            owner.struct.refcnt.counter -= 1
        self._loader.free(module)
        module.finished.happen()

    # -- livepatch relocations --------------------------------------------------------------------

    def klp_apply_object_relocs(self, address: int, objname: str) -> None:
        """``klp_apply_object_relocs``: apply the livepatch relocations of the module at ``address`` for one
        object. Raises OSError, after a log line."""
        module = self.at(address)
        if module is not None:
            self.klp_relocations.klp_apply_object_relocs(module, objname)

    def klp_clear_object_relocs(self, address: int, objname: str) -> None:
        """``klp_clear_object_relocs``: undo `klp_apply_object_relocs`."""
        module = self.at(address)
        if module is not None:
            self.klp_relocations.klp_clear_object_relocs(module, objname)

    # -- what people see --------------------------------------------------------------------------

    @staticmethod
    def flags(module: LoadedModule) -> str:
        """``module_flags``: taints and state in parentheses, or nothing."""
        letters = module_taint_letters(int(module.struct.taints))
        marks: dict[int, str] = {State.GOING: "-", State.COMING: "+"}
        state = marks.get(int(module.struct.state), "")
        return f"({letters}{state})" if letters or state else ""

    def linked_in(self) -> str:
        """``print_modules``."""
        names = "".join(f" {module.name}{self.flags(module)}" for module in self if module.placed)
        return f"Modules linked in:{names}"

    def proc_modules(self) -> str:
        """/proc/modules (``m_show``)."""
        lines = []
        for module in self:
            struct = module.struct
            if not module.placed or struct.state == State.UNFORMED:
                continue
            users = "".join(f"{user.name}," for user in module.users)
            if struct.init and not struct.exit:
                users += "[permanent],"
            size = struct.core_layout.size + struct.init_layout.size
            state = _STATE_NAMES.get(int(struct.state), "Unknown")
            flags = self.flags(module)
            lines.append(
                f"{module.name} {size} {module.refcount} {users or '-'} {state} "
                f"{int(struct.core_layout.base):#018x}{' ' + flags if flags else ''}\n"
            )
        return "".join(lines)
