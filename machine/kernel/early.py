# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel variables that a boot would have set: one CPU, which is online.

init/main.c, kernel/cpu.c, arch/x86/kernel/setup_percpu.c. Variables that an image does not have are
skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.memory import PAGE_SIZE

_STACK_CANARY = 0x28  # offset from the GS base, fixed in gcc
_CPU_MASKS = ("possible", "present", "online", "active")


def set_up_cpu(computer: Computer, random: Callable[[int], bytes]) -> None:
    """Set the CPU masks and per-CPU variables for a machine with one CPU, CPU 0.

    ``random`` returns the given number of random bytes.
    """
    write, symbols = computer.space.write_u64, computer.symbols
    for kind in _CPU_MASKS:
        mask = symbols.lookup(f"__cpu_{kind}_mask")
        if mask is not None:
            write(mask, 1)
    for name in ("__num_online_cpus", "nr_cpu_ids"):
        address = symbols.lookup(name)
        if address is not None:
            computer.space.write_u32(address, 1)
    if computer.per_cpu_offset:
        write(computer.symbol("__per_cpu_offset"), computer.per_cpu_offset)
        write(computer.per_cpu("this_cpu_off"), computer.per_cpu_offset)
        # The lowest byte is 0, so that a string which overruns its buffer changes the canary.
        canary = b"\0" + random(7)
        computer.memory.write(computer.per_cpu_offset + _STACK_CANARY, canary)


def set_up_system(computer: Computer, slab: Slab, command_line: str) -> None:
    """Set the system state, the number of pages and, if it is empty, the saved command line."""
    space, symbols = computer.space, computer.symbols
    state = symbols.lookup("system_state")
    if state is not None:
        space.write_u32(state, space.types["enum system_states"].values["SYSTEM_RUNNING"])
    slab_state = symbols.lookup("slab_state")
    if slab_state is not None:
        space.write_u32(slab_state, space.types["enum slab_state"].values["FULL"])
    pages = symbols.lookup("_totalram_pages")
    if pages is not None:
        space.write_u64(pages, computer.memory.size // PAGE_SIZE)
    line = symbols.lookup("saved_command_line")
    if line is not None and not space.read_u64(line):
        text = command_line.encode("utf-8", "surrogateescape") + b"\0"
        at = slab.alloc(len(text), "saved_command_line")
        computer.memory.write(at, text)
        space.write_u64(line, at)
