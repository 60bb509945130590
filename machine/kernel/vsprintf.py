# SPDX-License-Identifier: GPL-2.0-or-later
"""Formatted text: format strings and their va_list are formatted by the guest's own vscnprintf()."""

from __future__ import annotations

import struct

from klpfs.machine.computer import Computer
from klpfs.machine.instructions import call_to
from klpfs.machine.kernel.sched.core import Task

LOG_LINE_MAX = 1024 - 32
"""Bytes of the longest text of one printk, kernel/printk/printk.c."""


def text(data: bytes) -> str:
    """Decode bytes of the guest. Invalid UTF-8 becomes surrogates, so that encoding restores it."""
    return data.decode("utf-8", "surrogateescape")


def formatting(computer: Computer, at: int, trap: int) -> bytes:
    """Return the prologue (`service.Prologue`) of ``f(a, b, c, fmt, va_list)``. It calls the trap with
    ``a``, ``b``, the address of the text (at most ``LOG_LINE_MAX - 1`` bytes) and its length."""
    before = bytes.fromhex(
        "55 4889e5"  # push %rbp; mov %rsp,%rbp
        "57 56"  # push %rdi; push %rsi
        f"4881ec {LOG_LINE_MAX.to_bytes(4, 'little').hex()}"  # sub $LOG_LINE_MAX,%rsp
        f"4889e7 be {LOG_LINE_MAX.to_bytes(4, 'little').hex()}"  # mov %rsp,%rdi; mov $...,%esi
        "4889ca 4c89c1"  # mov %rcx,%rdx; mov %r8,%rcx
    )
    between = bytes.fromhex(
        "4889e2 89c1"  # mov %rsp,%rdx; mov %eax,%ecx
        "488b75f0 488b7df8"  # mov -16(%rbp),%rsi; mov -8(%rbp),%rdi
    )
    code = before + call_to(at + len(before), computer.symbol("vscnprintf")) + between
    return code + call_to(at + len(code), trap) + b"\xc9\xc3"  # leave; ret


async def vscnprintf(
    computer: Computer, task: Task, fmt: int, va_list: int, limit: int = LOG_LINE_MAX
) -> bytes:
    """Run the guest's vscnprintf() on ``task``, with a buffer below its stack pointer. Returns the text, at
    most ``limit - 1`` bytes."""
    computer.cpu["rsp"] -= limit  # `Task.call` restores it
    buffer = computer.cpu["rsp"]
    try:
        length = await task.call(computer.symbol("vscnprintf"), buffer, limit, fmt, va_list)
        return computer.memory.read(buffer, min(length & 0xFFFFFFFF, limit - 1))
    finally:
        computer.cpu["rsp"] += limit


async def vscnprintf_here(
    computer: Computer, task: Task, fmt: int, fixed: int, limit: int = LOG_LINE_MAX
) -> bytes:
    """Format the arguments of the variadic function that ``task`` has just entered. ``fixed`` is the number
    of named arguments, which are integers, including ``fmt``. Returns the text, at most ``limit - 1`` bytes.

    The registers and the va_list are written to the stack, as the function's own prologue would do.
    """
    cpu = computer.cpu
    entered = cpu["rsp"]
    save_area = entered - 48
    va_list = save_area - 24
    computer.memory.write(save_area, struct.pack("<6Q", *cpu.arguments(6)))
    computer.memory.write(va_list, struct.pack("<IIQQ", 8 * fixed, 48, entered + 8, save_area))
    cpu["rsp"] = va_list
    try:
        return await vscnprintf(computer, task, fmt, va_list, limit)
    finally:
        cpu["rsp"] = entered
