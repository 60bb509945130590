# SPDX-License-Identifier: GPL-2.0-or-later
"""What the boot that never was would have left in the kernel's variables: one CPU, which is up.

init/main.c, kernel/cpu.c, arch/x86/kernel/setup_percpu.c. An image that has its variables right from the
start, or does without them, is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from klpfs.machine.computer import Computer
from klpfs.machine.kernel.mm.slab import Slab
from klpfs.machine.memory import PAGE_SIZE

_STACK_CANARY = 0x28  # from the GS base, where gcc looks for it
_CPU_MASKS = ("possible", "present", "online", "active")


def set_up_cpu(computer: Computer, random: Callable[[int], bytes]) -> None:
    """The masks and per-CPU variables that say that this is CPU 0, and the only one."""
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
        # Its lowest byte is 0, so that no string runs over it unnoticed.
        canary = b"\0" + random(7)
        computer.memory.write(computer.per_cpu_offset + _STACK_CANARY, canary)


def set_up_system(computer: Computer, slab: Slab, command_line: str) -> None:
    """The state of the system, its memory, and what the boot loader said."""
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
