# SPDX-License-Identifier: GPL-2.0-or-later
"""``machine``: files that a kernel does not have, for its system calls and for the computer.

A module is loaded by ``cat patch.ko > machine/insmod``. A line before the module has options and module
parameters: ``(echo -f number=3; cat patch.ko) > machine/insmod``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from klpfs.fs.attributes import Attribute
from klpfs.fs.caller import caller_task
from klpfs.fs.dynamic import DynamicDirectory
from klpfs.fs.nodes import Caller, Directory, Handle, Node
from klpfs.fs.procfs import text_file
from klpfs.fs.streams import Stream, Upload
from klpfs.fs.syscalls import syscall_file
from klpfs.machine import disasm
from klpfs.machine.cpu import REGISTERS
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.kobject import is_file_name
from klpfs.machine.kernel.livepatch.abi import Life
from klpfs.machine.kernel.livepatch.universe import KLP_PATCHED, KLP_UNPATCHED
from klpfs.machine.kernel.module.check import IGNORE_MODVERSIONS, IGNORE_VERMAGIC
from klpfs.machine.kernel.printk.printk import Printk

_ELF_MAGIC = b"\x7fELF"
_FORCE = {"-f": IGNORE_VERMAGIC | IGNORE_MODVERSIONS, "--force": IGNORE_VERMAGIC | IGNORE_MODVERSIONS,
          "--force-vermagic": IGNORE_VERMAGIC, "--force-modversion": IGNORE_MODVERSIONS}  # fmt: skip
_TEXT_KINDS = "tTwW"
_MAX_FUNCTION_SIZE = 1 << 20


def split_upload(data: bytes) -> tuple[int, str, bytes]:
    """Split the data of a write to ``insmod`` into flags, module parameters and the module."""
    if data.startswith(_ELF_MAGIC):
        return 0, "", data
    line, newline, rest = data.partition(b"\n")
    if not newline or not rest.startswith(_ELF_MAGIC):
        return 0, "", data  # not a module: the loader reports that
    flags, words = 0, line.decode("utf-8", "surrogateescape").split(" ")
    while words and words[0] in _FORCE:
        flags |= _FORCE[words.pop(0)]
    return flags, " ".join(words), rest


class _Disassembly(DynamicDirectory):
    """A file for each function, with its current code.

    If several functions share a name, ``name`` is the first and ``name,2`` the second.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(0o555)
        self._kernel = kernel

    def _address(self, name: str) -> int | None:
        name, comma, position = name.partition(",")
        module, colon, rest = name.rpartition(":")
        objects = [module] if colon else [None, *self._kernel.modules.names()]
        addresses = [
            address
            for object_ in objects
            for address in self._kernel.symbols.all_named(rest if colon else name, object_)
        ]
        index = int(position) - 1 if comma and position.isdecimal() else 0
        return addresses[index] if 0 <= index < len(addresses) else None

    def names(self) -> Iterable[str]:
        seen: dict[str, int] = {}
        for symbol, _module in self._kernel.symbols:
            if symbol.kind in _TEXT_KINDS and is_file_name(symbol.name):
                count = seen[symbol.name] = seen.get(symbol.name, 0) + 1
                yield symbol.name if count == 1 else f"{symbol.name},{count}"

    def exists(self, name: str) -> bool:
        return self._address(name) is not None

    def make(self, name: str) -> Node:
        def text() -> str:
            address = self._address(name)
            if address is None:
                raise OSError(errno.ENODEV, "the function is gone")
            return disassembly(self._kernel, address)

        return text_file(text)


def disassembly(kernel: Kernel, address: int) -> str:
    """Return the function at ``address`` in the format of objdump, with the names of call targets."""
    symbols = kernel.symbols
    found = symbols.lookup_address(address)
    size = min(found[0].size if found else 64, _MAX_FUNCTION_SIZE)
    code = kernel.computer.memory.read(address, size)
    lines = [f"{address:016x} <{found[0].name if found else hex(address)}>:"]
    for instruction in disasm.disassemble(code, address):
        line = f"{instruction.address:16x}:\t{instruction.code.hex(' '):<24}\t{instruction.text}"
        if instruction.target is not None:
            line += f" <{kernel.ftrace.sprint_symbol(instruction.target)}>"
        lines.append(line)
    return "\n".join(lines) + "\n"


class _PhysicalMemory(Handle):
    """The machine's RAM by physical address, like /dev/mem."""

    def __init__(self, node: Node, kernel: Kernel) -> None:
        super().__init__(node)
        self._memory = kernel.computer.memory

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        return self._memory.ram[offset : offset + size]


def _log_text(printk: Printk) -> bytes:
    """Return the log since the last clear, as text."""
    return printk.text(printk.clear_seq)


class _Syslog(Handle):
    """An open ``syslog``: reads return the log at the time of the first read; writes are commands."""

    def __init__(self, node: Node, kernel: Kernel) -> None:
        super().__init__(node)
        self._printk = kernel.printk
        self._text: bytes | None = None

    async def read(self, caller: Caller, offset: int, size: int) -> bytes:
        if offset == 0 or self._text is None:
            self._text = _log_text(self._printk)
        return self._text[offset : offset + size]

    async def write(self, caller: Caller, offset: int, data: bytes) -> int:
        if data.strip() != b"clear":
            raise OSError(errno.EINVAL, "the only command is clear")
        self._printk.clear()
        return len(data)


def _registers(kernel: Kernel) -> str:
    lines = []
    for task in [kernel.sched.idle, *kernel.sched]:
        r = task.registers()
        lines.append(f"{task.comm} {task.pid}{' in ' + task.service if task.service else ''}")
        for names in (REGISTERS[i : i + 3] for i in range(0, len(REGISTERS), 3)):
            lines.append("  " + " ".join(f"{name:>6} {r[name]:016x}" for name in names))
    return "\n".join(lines) + "\n"


def _allocations(kernel: Kernel) -> str:
    lines = [
        f"{address:016x} {allocation.size} {allocation.owner}\n"
        for address, allocation in sorted(kernel.slab.allocations().items())
    ]
    return "".join(lines)


def _consistency(kernel: Kernel) -> str:
    """Return a line for each enabled patch: its model, and the number of tasks in each state."""
    lines = ["patch model leave switch redirection detection unpatched patched\n"]
    transition = kernel.livepatch.transition
    for patch in kernel.livepatch.patches():
        model = kernel.livepatch.consistency.of(patch)
        words = [patch.mod.name.string(), *model[:5]]
        if transition.patch is not None and transition.patch.address_ == patch.address_:
            states = [int(task.struct.patch_state) for task in kernel.universes.tasks()]
            words += [str(states.count(KLP_UNPATCHED)), str(states.count(KLP_PATCHED))]
        else:
            words += ["-", "-"]
        lines.append(" ".join(words) + "\n")
    return "".join(lines)


def machinefs(kernel: Kernel) -> Directory:
    """Return the directory."""
    root = Directory(0o755)

    async def insmod(caller: Caller, data: bytes) -> None:
        flags, params, module = split_upload(data)
        async with caller_task(kernel, caller):
            await kernel.modules.init_module(module, params, flags)

    async def rmmod(caller: Caller, data: bytes) -> None:
        words = data.decode("utf-8", "surrogateescape").split()
        force = "-f" in words
        names = [word for word in words if not word.startswith("-")]
        if len(names) != 1:
            raise OSError(errno.EINVAL, "expected one module name")
        async with caller_task(kernel, caller):
            await kernel.modules.delete_module(names[0], force=force)

    async def show_clock(_caller: Caller) -> bytes:
        kind = "virtual" if kernel.clock.virtual else "real"
        return f"{kernel.clock.now() / 1e9:.9f} {kind}\n".encode()

    async def store_clock(_caller: Caller, data: bytes) -> None:
        try:
            seconds = float(data.decode().strip().removeprefix("+"))
        except ValueError:
            raise OSError(errno.EINVAL, "expected a number of seconds") from None
        if not isinstance(kernel.clock, VirtualClock) or not 0 <= seconds < 1e9:
            raise OSError(errno.EINVAL, "only virtual time can be advanced")
        await kernel.clock.advance(seconds)

    root.add("insmod", Upload(insmod))
    root.add("rmmod", Attribute(None, rmmod))
    root.add("syscall", syscall_file(kernel))
    root.add("clock", Attribute(show_clock, store_clock))
    syslog = Stream(
        lambda node, _c, _f: _Syslog(node, kernel), 0o644, lambda: len(_log_text(kernel.printk))
    )
    syslog.mappable = True  # dmesg -F maps it
    root.add("syslog", syslog)
    root.add("disasm", _Disassembly(kernel))
    root.add("registers", text_file(lambda: _registers(kernel), 0o400))
    root.add("allocations", text_file(lambda: _allocations(kernel), 0o400))
    root.add(
        "memory",
        Stream(
            lambda node, _c, _f: _PhysicalMemory(node, kernel), 0o400, kernel.computer.memory.size
        ),
    )
    if kernel.abi.life is not Life.NONE:
        root.add("consistency", text_file(lambda: _consistency(kernel)))
    root.add("pid", text_file(lambda: f"{os.getpid()}\n"))
    return root
