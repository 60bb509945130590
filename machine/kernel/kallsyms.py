# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbol lookup and memory statistics for guest code. kernel/kallsyms.c, mm/page_alloc.c."""

from __future__ import annotations

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.service import Ptr, service
from klpfs.machine.memory import PAGE_SIZE

_KSYM_SYMBOL_LEN = 611


class Kallsyms:
    """Symbol lookup, as ``%pS`` and the other symbol formats of printk need it."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer

    def text(self) -> str:
        """Return the content of /proc/kallsyms for root (``s_show``). The letter of an exported symbol is a
        capital."""
        return "".join(
            f"{symbol.addr:016x} {symbol.kind if symbol.kind != 'U' else 'u'} {symbol.name}"
            + (f"\t[{module}]\n" if module else "\n")
            for symbol, module in self._computer.symbols
        )

    def _put(self, buffer: int, text: str) -> int:
        data = text.encode("utf-8", "surrogateescape")[: _KSYM_SYMBOL_LEN - 1]
        self._computer.memory.write(buffer, data + b"\0")
        return len(data)

    @service("sprint_symbol")
    def sprint_symbol(self, buffer: Ptr, address: Ptr) -> int:
        return self._put(buffer, self._computer.symbols.sprint_symbol(address))

    @service("sprint_symbol_no_offset")
    def sprint_symbol_no_offset(self, buffer: Ptr, address: Ptr) -> int:
        return self._put(buffer, self._computer.symbols.sprint_symbol_no_offset(address))

    @service("sprint_symbol_build_id")
    def sprint_symbol_build_id(self, buffer: Ptr, address: Ptr) -> int:
        return self._put(buffer, self._computer.symbols.sprint_symbol_build_id(address))

    @service("sprint_backtrace_build_id")
    def sprint_backtrace_build_id(self, buffer: Ptr, address: Ptr) -> int:
        return self._put(buffer, self._computer.symbols.sprint_backtrace_build_id(address))

    @service("kallsyms_lookup_name")
    def kallsyms_lookup_name(self, name: Ptr) -> int:
        return self._computer.symbols.lookup(self._computer.space.read_string(name)) or 0

    @service("sprint_backtrace")
    def sprint_backtrace(self, buffer: Ptr, address: Ptr) -> int:
        return self._put(buffer, self._computer.symbols.sprint_backtrace(address))


class SystemInfo:
    """``si_meminfo``: the numbers in /proc/meminfo."""

    def __init__(self, base: Base) -> None:
        self._computer = base.computer
        self._clock = base.clock

    @service("si_meminfo")
    def si_meminfo(self, address: Ptr) -> None:
        memory = self._computer.memory
        info = self._computer.space.view("struct sysinfo", address)
        info.totalram = memory.size // PAGE_SIZE
        info.freeram = memory.free_bytes // PAGE_SIZE
        info.sharedram = info.bufferram = info.totalhigh = info.freehigh = 0
        info.mem_unit = PAGE_SIZE
