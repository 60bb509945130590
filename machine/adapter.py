# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences between kernels in structs and symbols: the names that klpfs uses, and what each stands for
in the kernels that it runs.

A row has candidates. The first one that the image's own types (BTF) and symbols have is used. The version
of the kernel does not count, because distributions backport: Debian's 6.1 has functions of 6.2. A candidate
says which version of Linux introduced it, with which commit. To support another kernel, add a candidate; the
code that uses the row stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from klpfs.machine.btf import Types
from klpfs.machine.structs import Field, Space
from klpfs.machine.symbols import SymbolTable


class Member(NamedTuple):
    """A member of a struct. ``path`` may have indexes that are constants of an enum: ``mem[enum.NAME]``."""

    struct: str
    path: str
    since: str = ""
    """The version of Linux that introduced it; empty if that is older than live patching."""
    commit: str = ""
    config: str = ""
    """The option that it depends on."""


class Variable(NamedTuple):
    """A per-CPU variable, or a member of one that is a struct."""

    symbol: str
    struct: str = ""
    path: str = ""
    since: str = ""
    commit: str = ""


class Function(NamedTuple):
    """A name of a function."""

    name: str
    since: str = ""
    commit: str = ""


class StructType(NamedTuple):
    """A type."""

    name: str
    since: str = ""
    commit: str = ""


_4_5 = "4.5", "7523e4dc5057"  # module: use a structure to encapsulate layout
_6_4 = "6.4", "ac3b43283923"  # module: replace module_layout with module_memory

MEMBERS: Mapping[str, tuple[Member, ...]] = {
    "task.state": (
        Member("struct task_struct", "__state", "5.14", "2f064a59a11f"),
        Member("struct task_struct", "state"),
    ),
    "task.cpus_ptr": (Member("struct task_struct", "cpus_ptr", "5.3", "3bd3706251ee"),),
    "mutex.rtmutex": (
        Member("struct mutex", "rtmutex", "5.15", "bb630f9f7a7d", config="PREEMPT_RT"),
    ),
    "module.sig_ok": (Member("struct module", "sig_ok", config="MODULE_SIG"),),
    "module.jump_entries": (Member("struct module", "jump_entries", config="JUMP_LABEL"),),
    "module.num_jump_entries": (Member("struct module", "num_jump_entries", config="JUMP_LABEL"),),
    # The memory of a module: one area each for core and init, or one for each kind of section.
    "module.base": (
        Member("struct module", "mem[mod_mem_type.MOD_TEXT].base", *_6_4),
        Member("struct module", "core_layout.base", *_4_5),
    ),
    "module.core": (Member("struct module", "core_layout", *_4_5),),
    "module.core.text_size": (Member("struct module", "core_layout.text_size", *_4_5),),
    "module.core.ro_size": (Member("struct module", "core_layout.ro_size", *_4_5),),
    "module.core.text": (Member("struct module", "mem[mod_mem_type.MOD_TEXT]", *_6_4),),
    "module.core.rodata": (Member("struct module", "mem[mod_mem_type.MOD_RODATA]", *_6_4),),
    "module.core.ro_after_init": (
        Member("struct module", "mem[mod_mem_type.MOD_RO_AFTER_INIT]", *_6_4),
    ),
    "module.core.data": (Member("struct module", "mem[mod_mem_type.MOD_DATA]", *_6_4),),
    "module.init": (Member("struct module", "init_layout", *_4_5),),
    "module.init.text_size": (Member("struct module", "init_layout.text_size", *_4_5),),
    "module.init.ro_size": (Member("struct module", "init_layout.ro_size", *_4_5),),
    "module.init.text": (Member("struct module", "mem[mod_mem_type.MOD_INIT_TEXT]", *_6_4),),
    "module.init.rodata": (Member("struct module", "mem[mod_mem_type.MOD_INIT_RODATA]", *_6_4),),
    "module.init.data": (Member("struct module", "mem[mod_mem_type.MOD_INIT_DATA]", *_6_4),),
}

VARIABLES: Mapping[str, tuple[Variable, ...]] = {
    "current_task": (
        Variable("pcpu_hot", "struct pcpu_hot", "current_task", "6.2", "e57ef2ed97c1"),
        Variable("current_task"),  # and again since 6.15, a1e4cc0155ad
    ),
    "preempt_count": (
        Variable("pcpu_hot", "struct pcpu_hot", "preempt_count", "6.2", "64701838bf05"),
        Variable("__preempt_count"),  # and again since 6.15, 46e8fff6d45f
    ),
}

FUNCTIONS: Mapping[str, tuple[Function, ...]] = {
    "del_timer": (
        Function("timer_delete", "6.2", "bb663f0f3c39"),
        Function("del_timer"),
    ),
    "del_timer_sync": (
        Function("timer_delete_sync", "6.2", "9b13df3fb64e"),
        Function("del_timer_sync"),
    ),
    "__flush_workqueue": (
        Function("__flush_workqueue", "5.19", "c4f135d64382"),
        Function("flush_workqueue"),
    ),
}

TYPES: Mapping[str, tuple[StructType, ...]] = {
    "ftrace_regs": (StructType("struct ftrace_regs", "5.11", "02a474ca266a"),),
}
"""Types that are asked for only to know whether a kernel has them."""

_CONSTANT = re.compile(r"\[(\w+)\.(\w+)\]")


class Adapter:
    """The rows as they apply to one kernel image. ``per_cpu_offset``: see `klpfs.machine.computer.Computer`.

    A name that is in no table raises KeyError, except in `functions`.
    """

    def __init__(self, space: Space, symbols: SymbolTable, per_cpu_offset: int) -> None:
        self._space = space
        self._symbols = symbols
        self._per_cpu_offset = per_cpu_offset

    def find(self, name: str) -> Field | None:
        """Return the member that a row of `MEMBERS` stands for, or None if this kernel has none."""
        for member in MEMBERS[name]:
            try:
                path = _resolve(self._space.types, member.path)
                return self._space.field(member.struct, path)
            except LookupError:
                continue
        return None

    def field(self, name: str) -> Field:
        """Return the member that a row of `MEMBERS` stands for. Raises LookupError if this kernel has
        none."""
        found = self.find(name)
        if found is None:
            tried = " nor ".join(f"{member.struct}.{member.path}" for member in MEMBERS[name])
            raise LookupError(f"this kernel has no {tried}")
        return found

    def per_cpu(self, name: str) -> int:
        """Return the address that a row of `VARIABLES` stands for, on the one CPU. Raises LookupError if this
        kernel has none."""
        for variable in VARIABLES[name]:
            address = self._symbols.lookup(variable.symbol)
            if address is not None:
                return address + self._offset(variable) + self._per_cpu_offset
        tried = " nor ".join(variable.symbol for variable in VARIABLES[name])
        raise LookupError(f"this kernel has no {tried}")

    def _offset(self, variable: Variable) -> int:
        if not variable.path:
            return 0
        return self._space.types.offsetof(variable.struct, variable.path)

    def functions(self, name: str) -> tuple[str, ...]:
        """Return all names that a row of `FUNCTIONS` has for the function ``name``; just ``name`` if it has
        no row."""
        return tuple(function.name for function in FUNCTIONS.get(name, (Function(name),)))

    def has_type(self, name: str) -> bool:
        """Return whether this kernel has a type of a row of `TYPES`."""
        return any(type_.name in self._space.types for type_ in TYPES[name])


def _resolve(types: Types, path: str) -> str:
    """Put numbers in place of the constants in a path. Raises LookupError."""
    return _CONSTANT.sub(lambda found: f"[{types[f'enum {found[1]}'].values[found[2]]}]", path)
