# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults of the kernel: their error code, and the head of their report. arch/x86/mm/fault.c."""

from __future__ import annotations

from klpfs.machine import disasm
from klpfs.machine.computer import Computer
from klpfs.machine.kernel.oops.dumpstack import read_code
from klpfs.machine.kernel.printk.printk import LOGLEVEL_ALERT, LOGLEVEL_CRIT, LOGLEVEL_INFO, Printk
from klpfs.machine.memory import NX, PAGE_SIZE, PRESENT, WRITE, PageFault

X86_PF_PROT, X86_PF_WRITE, X86_PF_INSTR = 1, 2, 16
"""Bits of the error code, arch/x86/include/asm/trap_pf.h."""
INSTRUCTION_MAX = 15
"""Length of the longest instruction in bytes."""


def page_fault_code(computer: Computer, address: int) -> int:
    """Return the error code of the page fault at ``address``, which the emulator does not provide."""
    entry = computer.memory.entry(address)
    code = X86_PF_PROT if entry & PRESENT else 0
    rip = computer.cpu["rip"]
    into_next_page = rip < address < rip + INSTRUCTION_MAX and address % PAGE_SIZE == 0
    if address == rip or into_next_page:
        return code | X86_PF_INSTR
    if entry & PRESENT:
        return code | (0 if entry & WRITE else X86_PF_WRITE)
    try:
        here = read_code(computer.memory, rip, INSTRUCTION_MAX)
    except PageFault:
        return code | X86_PF_INSTR
    return code | (X86_PF_WRITE if disasm.writes_memory(here) else 0)


def show_fault_oops(computer: Computer, printk: Printk, address: int, code: int) -> None:
    """``show_fault_oops``: log the kind of access and the page table entries."""
    if code & (X86_PF_INSTR | X86_PF_PROT) == X86_PF_INSTR | X86_PF_PROT:
        entry = computer.memory.entry(address)
        if entry & NX:
            printk(
                LOGLEVEL_CRIT,
                "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
            )
    if address < PAGE_SIZE:
        printk(LOGLEVEL_ALERT, f"BUG: kernel NULL pointer dereference, address: {address:016x}")
    else:
        printk(LOGLEVEL_ALERT, f"BUG: unable to handle page fault for address: {address:016x}")
    if code & X86_PF_INSTR:
        access = "instruction fetch"
    else:
        access = "write access" if code & X86_PF_WRITE else "read access"
    printk(
        LOGLEVEL_ALERT,
        f"#PF: supervisor {access} in kernel mode",
    )
    reason = "permissions violation" if code & X86_PF_PROT else "not-present page"
    printk(LOGLEVEL_ALERT, f"#PF: error_code({code:#06x}) - {reason}")
    entries = computer.memory.walk(address)
    levels = zip(("PGD", "P4D", "PUD", "PMD", "PTE"), [entries[0], *entries], strict=False)
    line = "".join(f"{level} {entry:x} " for level, entry in levels)
    printk(LOGLEVEL_INFO, line if len(entries) < 4 else line.rstrip())
