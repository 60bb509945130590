# SPDX-License-Identifier: GPL-2.0-or-later
"""A call of a guest function, as a user writes it down: ``FUNCTION(ARGUMENT, ...)``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from klpfs.machine.btf import Kind
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.proc import ProcEntry


@dataclass(frozen=True)
class GuestCall:
    """A function by its name, and what it is given: numbers, and strings that live as long as the call."""

    function: str
    arguments: tuple[int | str, ...]
    shows: bool
    """It writes to a seq_file, and is given one."""

    async def run(self, kernel: Kernel, address: int) -> str:
        """What the function at ``address`` returns to the current task, or what it prints into its file."""
        if self.shows:
            entry = ProcEntry(self.function, 0o444, 0, show=address)
            return repr((await kernel.proc.read(entry)).decode("utf-8", "replace"))
        held: list[int] = []
        try:
            numbers = [_materialize(kernel, argument, held) for argument in self.arguments]
            value = await kernel.sched.current.call(address, *numbers)
            return _returned(kernel, self.function, value)
        finally:
            for buffer in held:
                kernel.slab.free(buffer)


def _materialize(kernel: Kernel, argument: int | str, held: list[int]) -> int:
    if isinstance(argument, int):
        return argument % (1 << 64)
    data = argument.encode() + b"\0"
    held.append(kernel.slab.alloc(len(data), "argument"))
    kernel.computer.memory.write(held[-1], data)
    return held[-1]


def _returned(kernel: Kernel, function: str, value: int) -> str:
    """What is in RAX, as what the function returns. Without a type of it: an int if it could be one."""
    described = kernel.computer.space.types.function(function)
    size = 8 if value >> 32 else 4
    if described is not None:
        type_ = described.target.target.stripped
        if type_.kind is Kind.VOID:
            return "nothing"
        size = type_.size or size
    bits = 8 * min(size, 8)
    value &= (1 << bits) - 1
    return f"{value - (value >> (bits - 1) << bits)} ({value:#x})"


_CALL = re.compile(r"\s*([A-Za-z_.][\w.]*)\s*\((.*)\)\s*", re.DOTALL)
_ARGUMENT = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|(-?\w+))\s*(?:,|$)')


def guest_call(text: str) -> GuestCall:
    """``FUNCTION(ARGUMENT, ...)``: numbers, strings in double quotes, or ``seq`` for a seq_file. Raises
    ValueError."""
    found = _CALL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not FUNCTION(ARGUMENT, ...)")
    arguments: list[int | str] = []
    rest, shows = found[2], False
    while rest.strip():
        part = _ARGUMENT.match(rest)
        if part is None:
            raise ValueError(f"{rest.strip()!r} is neither a number nor a string in quotes")
        rest = rest[part.end() :]
        if part[2] is None:
            arguments.append(re.sub(r"\\(.)", r"\1", part[1]))
        elif part[2] == "seq" and not arguments:
            shows = True
        else:
            arguments.append(int(part[2], 0))
    return GuestCall(found[1], tuple(arguments), shows)
