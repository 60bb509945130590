# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of guest functions, as users write them: ``FUNCTION(ARGUMENT, ...)``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from klpfs.machine.btf import Kind
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.proc_tree import ProcEntry


@dataclass(frozen=True)
class GuestCall:
    """A function name and its arguments. Memory for strings is freed when the call returns."""

    function: str
    arguments: tuple[int | str, ...]
    has_seq_file: bool
    """The function prints to a seq_file, its only argument."""

    async def run(self, kernel: Kernel, address: int) -> str:
        """Call the function at ``address`` in the current task.

        Return its return value, or what it printed to its seq_file, as text.
        """
        if self.has_seq_file:
            entry = ProcEntry(self.function, 0o444, 0, show=address)
            return repr((await kernel.proc.read(entry)).decode("utf-8", "replace"))
        buffers: list[int] = []
        try:
            numbers = [_as_number(kernel, argument, buffers) for argument in self.arguments]
            value = await kernel.sched.current.call(address, *numbers)
            return _format_result(kernel, self.function, value)
        finally:
            for buffer in buffers:
                kernel.slab.free(buffer)


def _as_number(kernel: Kernel, argument: int | str, buffers: list[int]) -> int:
    """Return the value to pass in a register; copy a string to guest memory, added to ``buffers``."""
    if isinstance(argument, int):
        return argument % (1 << 64)
    data = argument.encode() + b"\0"
    buffers.append(kernel.slab.alloc(len(data), "argument"))
    kernel.computer.memory.write(buffers[-1], data)
    return buffers[-1]


def _format_result(kernel: Kernel, function: str, value: int) -> str:
    """Return the value of RAX as a value of the function's return type.

    Without type information it is an int if the upper half is zero, else a long.
    """
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
    """Parse ``FUNCTION(ARGUMENT, ...)``. Raise ValueError if it is something else.

    Arguments are numbers, strings in double quotes, or ``seq`` for a seq_file.
    """
    found = _CALL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a call: write FUNCTION(ARGUMENT, ...)")
    arguments: list[int | str] = []
    rest, has_seq_file = found[2], False
    while rest.strip():
        part = _ARGUMENT.match(rest)
        if part is None:
            raise ValueError(
                f"argument {rest.strip()!r} of {found[1]}() is neither a number nor a string in "
                "double quotes"
            )
        rest = rest[part.end() :]
        if part[2] is None:
            arguments.append(re.sub(r"\\(.)", r"\1", part[1]))
        elif part[2] == "seq" and not arguments:
            has_seq_file = True
        else:
            arguments.append(int(part[2], 0))
    return GuestCall(found[1], tuple(arguments), has_seq_file)
