# SPDX-License-Identifier: GPL-2.0-or-later
"""Placing of a module in guest memory: layout, symbols, relocations, memory protection.
kernel/module/main.c, kernel/module/strict_rwx.c.

A booted kernel rewrites parts of a module's text for its CPU (``.altinstructions``, ``.parainstructions``,
``.smp_locks``, ``.retpoline_sites``, ``.return_sites``, ``.call_sites``, ``.ibt_endbr_seal``,
``.static_call_sites``). This loader leaves them as the compiler made them, which every CPU can run. The
text of an unbooted image is in the same state.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Protocol

from klpfs.machine import limits
from klpfs.machine.elf import (
    SHF_RELA_LIVEPATCH,
    SHN_ABS,
    SHN_COMMON,
    SHN_LIVEPATCH,
    SHN_UNDEF,
    SHT_NOBITS,
    STB_WEAK,
    ElfError,
    ElfSymbol,
    apply_relocations,
    layout,
)
from klpfs.machine.image import Export, read_exports
from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.module.errors import elf_errors_logged
from klpfs.machine.kernel.module.loaded import LoadedModule, State
from klpfs.machine.kernel.module.memory import ModuleMemory
from klpfs.machine.kernel.module.percpu import ModulePerCpu
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ERR, LOGLEVEL_WARNING

IGNORED_SECTIONS = {
    "__tracepoints", "__tracepoints_ptrs", "__bpf_raw_tp_map", "_ftrace_events", "_ftrace_eval_map",
    "__trace_printk_fmt", "__dyndbg", ".BTF", "___srcu_struct_ptrs", "_error_injection_whitelist",
    ".kunit_test_suites",
}  # fmt: skip
"""Sections for subsystems that do not run here. The loader ignores them."""

_BUG_ENTRY, _JUMP_ENTRY = 12, 16


class ExportTable(Protocol):
    """The symbols that the kernel and its modules export."""

    def resolve(self, user: LoadedModule, name: str, *, gpl: bool) -> Export | None:
        """Return the export ``name`` for the module ``user``, or None. Raises OSError(EBUSY) if the module
        that exports it is not live yet."""

    def owner_of(self, export: str, *, exclude: LoadedModule) -> str | None:
        """Return the name of the module other than ``exclude`` that exports a symbol, ``kernel``, or
        None."""


class Loader:
    """Places modules in guest memory, and frees that memory."""

    def __init__(
        self,
        base: Base,
        *,
        exports: ExportTable,
        memory: ModuleMemory,
        percpu: ModulePerCpu,
        klp_apply_relocs: Callable[[LoadedModule], None],
    ) -> None:
        self._computer = base.computer
        self._printk = base.printk
        self._exports = exports
        self._klp_apply_relocs = klp_apply_relocs
        self._percpu = percpu
        self._memory = memory
        adapter = base.computer.adapter
        self._jump_entries = adapter.find("module.jump_entries")
        self._num_jump_entries = adapter.find("module.num_jump_entries")

    def place(self, module: LoadedModule) -> None:
        """``layout_and_allocate`` to ``post_relocation``: copy the module into guest memory, resolve its
        symbols, and relocate it. Raises OSError after logging the reason."""
        with elf_errors_logged(self._printk):
            module.plan = layout(module.elf)
            self._move_module(module)
            self._adopt_struct(module)
            module.percpu = self._percpu.alloc(module.elf)
            self._simplify_symbols(module)
            self._apply_relocations(module)
            self._find_module_sections(module)
            self._protect(module)

    def _move_module(self, module: LoadedModule) -> None:
        """``move_module``: allocate memory and copy the sections. Raises OSError(ENOMEM)."""
        computer, plan = self._computer, module.plan
        size = plan.core.size + plan.init.size
        try:
            for part, attribute in ((plan.core, "core_base"), (plan.init, "init_base")):
                if part.size:
                    base = computer.map_pages(computer.modules_area, part.size)
                    setattr(module, attribute, base)
        except MemoryError:
            self._printk(
                LOGLEVEL_WARNING,
                f"{module.name}: vmalloc error: size {size}, failed to allocate pages",
            )
            raise OSError(errno.ENOMEM, "no memory for the module") from None
        for index, place in plan.places.items():
            section = module.elf.sections[index]
            address = (module.init_base if place.init else module.core_base) + place.offset
            module.addresses[index] = address
            if section.type != SHT_NOBITS:
                computer.memory.write(address, bytes(section.data))

    def _adopt_struct(self, module: LoadedModule) -> None:
        """Fill in the struct module in the module's ``.gnu.linkonce.this_module``."""
        space, elf = self._computer.space, module.elf
        if elf.sections[elf.this_module].size < space.types.sizeof("struct module"):
            raise ElfError(
                errno.ENOEXEC,
                f"{module.name}: .gnu.linkonce.this_module section size must match the kernel's "
                "built struct module size at run time",
            )
        view = space.view("struct module", module.addresses[elf.this_module])
        module.struct, module.placed = view, True
        view.state = State.UNFORMED
        view.taints = module.taints
        view.klp = elf.is_livepatch
        view.klp_alive = False
        self._memory.set(view, "core", module.core_base, module.plan.core)
        self._memory.set(view, "init", module.init_base, module.plan.init)
        for member in ("source_list", "target_list", "list"):
            space.init_list_head(view.member_address_(member))

    def _simplify_symbols(self, module: LoadedModule) -> None:
        """``simplify_symbols``: compute the value of each symbol. All unknown symbols are logged before
        OSError is raised."""
        failed = 0
        for symbol in module.elf.symbols:
            value, problem = self._value_of(module, symbol)
            failed = failed or problem
            module.values.append(value & (1 << 64) - 1)
        if failed:
            raise OSError(failed, "unresolved symbols")

    def _value_of(self, module: LoadedModule, symbol: ElfSymbol) -> tuple[int, int]:
        """Return the value of a symbol, and an errno or 0."""
        name, shndx = module.name, symbol.shndx
        if shndx in (SHN_ABS, SHN_LIVEPATCH):
            return symbol.value, 0
        if shndx == SHN_COMMON:
            self._printk(LOGLEVEL_WARNING, f"{name}: please compile with -fno-common")
            return 0, errno.ENOEXEC
        if shndx == SHN_UNDEF:
            return self._resolve_symbol(module, symbol) if symbol.name else (0, 0)
        if shndx >= len(module.elf.sections):
            self._printk(
                LOGLEVEL_ERR,
                f"{name}: Symbol {symbol.name} has an invalid section index {shndx} "
                f"(max {len(module.elf.sections) - 1})",
            )
            return 0, errno.ENOEXEC
        if shndx == module.elf.percpu:
            return symbol.value + module.percpu[0], 0
        return symbol.value + module.addresses.get(shndx, 0), 0

    def _resolve_symbol(self, module: LoadedModule, symbol: ElfSymbol) -> tuple[int, int]:
        """``resolve_symbol_wait``: return the address of an undefined symbol, and an errno or 0."""
        problem = errno.ENOENT
        try:
            export = self._exports.resolve(module, symbol.name, gpl=module.is_gpl)
            if export is not None and not module.versions.check_version(symbol.name, export):
                raise OSError(errno.EINVAL, "another version of the symbol")
        except OSError as error:
            export, problem = None, error.errno or errno.EINVAL
        if export is not None:
            return export.addr, 0
        if symbol.bind == STB_WEAK and problem == errno.ENOENT:
            return 0, 0
        self._printk(
            LOGLEVEL_WARNING, f"{module.name}: Unknown symbol {symbol.name} (err {-problem})"
        )
        return 0, problem

    def _apply_relocations(self, module: LoadedModule) -> None:
        """``apply_relocations``. Livepatch relocations against vmlinux are applied last."""
        memory = self._computer.memory
        for section in module.elf.relocation_sections():
            if section.flags & SHF_RELA_LIVEPATCH:
                continue
            target = module.elf.sections[section.info]
            apply_relocations(
                module.name,
                module.elf.relocations(section),
                module.values,
                module.addresses[section.info],
                target.size,
                memory.read,
                memory.write,
            )
        self._klp_apply_relocs(module)

    # -- sections ---------------------------------------------------------------------------------

    def _table(self, module: LoadedModule, name: str) -> tuple[int, int]:
        """Return start and end of a section in memory; both 0 if the module does not have it."""
        section = module.elf.find(name)
        if section is None or section.index not in module.addresses:
            return 0, 0
        if section.size > limits.TABLE:
            raise ElfError(errno.ENOMEM, f"{module.name}: {name} has {section.size} bytes")
        start = module.addresses[section.index]
        return start, start + section.size

    def _find_module_sections(self, module: LoadedModule) -> None:
        """``find_module_sections``: read the sections that are tables for the kernel."""
        memory, view = self._computer.memory, module.struct
        for table, gpl_only in (("__ksymtab", False), ("__ksymtab_gpl", True)):
            start, end = self._table(module, table)
            crcs, _ = self._table(module, table.replace("ksymtab", "kcrctab"))
            module.exports |= read_exports(memory.read, start, end, gpl_only, crcs)
        for name in module.exports:
            self._verify_exported_symbol(module, name)
        start, end = self._table(module, "__mcount_loc")
        places = memory.read(start, (end - start) & -8) if start else b""
        sites = struct.unpack(f"<{len(places) // 8}Q", places)
        module.ftrace_sites = [site for site in sites if site and self._is_text(module, site)]
        view.ftrace_callsites, view.num_ftrace_callsites = start, len(sites)
        module.exception_table = self._table(module, "__ex_table")
        module.jump_table = start, end = self._table(module, "__jump_table")
        if start and self._jump_entries is not None and self._num_jump_entries is not None:
            self._jump_entries.set(view, start)
            self._num_jump_entries.set(view, (end - start) // _JUMP_ENTRY)
        module.orc_tables = (
            range(*self._table(module, ".orc_unwind_ip")), range(*self._table(module, ".orc_unwind"))
        )  # fmt: skip
        start, end = self._table(module, "__bug_table")
        if start:
            module.bug_table = (start, end)
            view.bug_table, view.num_bugs = start, (end - start) // _BUG_ENTRY
        if module.percpu[1]:
            view.percpu, view.percpu_size = module.percpu
        params = module.params(self._computer.space)
        view.num_kp = len(params)
        if params:
            view.kp = params[0].address_

    def _is_text(self, module: LoadedModule, site: int) -> bool:
        return any(
            region.base <= site and site + 5 <= region.base + region.text_size
            for region in module.regions
        )

    def _verify_exported_symbol(self, module: LoadedModule, name: str) -> None:
        """``verify_exported_symbols``: raise ElfError if ``name`` is exported already."""
        owner = self._exports.owner_of(name, exclude=module)
        if owner is not None:
            raise ElfError(
                errno.ENOEXEC,
                f"{module.name}: exports duplicate symbol {name} (owned by {owner})",
            )

    def _protect(self, module: LoadedModule) -> None:
        """``module_enable_ro``, ``module_enable_nx``, ``module_enable_x``."""
        memory = self._computer.memory
        for base, part in (
            (module.core_base, module.plan.core),
            (module.init_base, module.plan.init),
        ):
            if part.text_size:
                memory.protect(base, part.text_size, writable=False, executable=True)
            if part.ro_size > part.text_size:
                size = part.ro_size - part.text_size
                memory.protect(base + part.text_size, size, writable=False, executable=False)

    # -- freeing ----------------------------------------------------------------------------------

    def free_init(self, module: LoadedModule) -> None:
        """``do_free_init``, ``module_enable_ro``: free the init part, and make data that is read-only
        after init read-only."""
        core = module.plan.core
        if core.ro_after_init_size > core.ro_size:
            self._computer.memory.protect(
                module.core_base + core.ro_size,
                core.ro_after_init_size - core.ro_size,
                writable=False,
                executable=False,
            )
        self._free_part(module.init_base, module.init_size)
        gone = [index for index, place in module.plan.places.items() if place.init]
        for index in gone:
            module.addresses.pop(index, None)
        module.init_base = 0
        self._memory.clear_init(module.struct)

    def free(self, module: LoadedModule) -> None:
        """``module_deallocate``: free the module's memory."""
        if hasattr(module, "plan"):
            self._free_part(module.core_base, module.core_size)
            self._free_part(module.init_base, module.init_size)
        self._percpu.free(*module.percpu)
        module.core_base, module.init_base, module.percpu = 0, 0, (0, 0)
        module.placed = False

    def _free_part(self, base: int, size: int) -> None:
        if base:
            self._computer.unmap_pages(self._computer.modules_area, base, size)
