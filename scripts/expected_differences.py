# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between a kernel booted in QEMU and one of klpfs, and why that is as it should be."""

from __future__ import annotations

import re

from comparison import KLPFS, QEMU, Expected

TAINT_UNSIGNED_MODULE = 1 << 13


def _as_if_signed(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) & ~TAINT_UNSIGNED_MODULE}"


def _section(names: str) -> str:
    """Lines of sys/module/<module>/sections."""
    return rf"^-r-------- 1 0:0 19 \S+/sections/({names})\n    ADDRESS\n"


_COMMAND_LINE = ((r"^(console=ttyS0 |BOOT_IMAGE=).*$", "THE COMMAND LINE"),)
_SHADOW_SAMPLES = ((r"^<6>(livepatch_shadow_fix\d: livepatch_fix\d_)?dummy_\w+: dummy @ .*\n", ""),)

ALWAYS = (
    Expected("It was not booted with the same command line.", QEMU, _COMMAND_LINE),
    Expected("It was not booted with the same command line.", KLPFS, _COMMAND_LINE),
    Expected(
        "QEMU emulates a computer that is late for its own clocks now and then.",
        QEMU,
        ((r"^<\d>(hrtimer: interrupt took|clocksource: |rcu: INFO|sched: RT throttling).*\n", ""),),
    ),
    Expected(
        "How much the shadow variable samples say depends on how long they are left alone.",
        QEMU,
        _SHADOW_SAMPLES,
    ),
    Expected(
        "How much the shadow variable samples say depends on how long they are left alone.",
        KLPFS,
        _SHADOW_SAMPLES,
    ),
    Expected(
        "A module's file is never in the guest's memory: of its symbol table and of what is gone after "
        "loading, klpfs has no address there.",
        QEMU,
        ((_section(r"\.symtab|\.strtab"), ""),),
    ),
    Expected(
        "A module's file is never in the guest's memory: of its symbol table and of what is gone after "
        "loading, klpfs has no address there.",
        KLPFS,
        ((r"^POINTER \? ", "ADDRESS ? "),),
    ),
    Expected(
        "Under klpfs run, a process of the host is no task of the kernel and has no patch_state.",
        KLPFS,
        ((r"^cat: /proc/self/patch_state: No such file or directory\n\(status 1\)$", "-1"),),
    ),
    Expected(
        "A file system in user space can have no character device that is its own.",
        KLPFS,
        ((r"(/dev/kmsg\n)-(rw-r--r-- 0:0) 0,0$", r"\1c\2 1,b"),),
    ),
)
"""Whichever kernel klpfs has."""

EMBEDDED = (
    *(
        Expected(
            "Two compilers make functions of different lengths, and modules.",
            side,
            (
                (r"^(misbe\w+) \d+(?= 1 - Loading)", r"\1 SIZE"),
                (r"(?<=\+0x0)/0x[0-9a-f]+", "/SIZE"),
                (r"(?<=\+ADDRESS)/0x[0-9a-f]+", "/SIZE"),
            ),
        )
        for side in (QEMU, KLPFS)
    ),
    Expected(
        "The embedded kernel checks no signatures, so a module is not tainted as unsigned (E).",
        QEMU,
        (
            (
                r"^(<5>|5,N,N,-;)\S+: module verification failed: signature and/or required key .*\n",
                "",
            ),
            (r"^(--- tainted |kernel\.tainted = )(\d+)$", _as_if_signed),
            (r"(\(O|^O|^    O)E(?=K?[+-]?\)?$)", r"\1"),
            (r"(Tainted: .{13})E", r"\1 "),
        ),
    ),
    Expected(
        "The embedded kernel checks no signatures, so a module is not tainted as unsigned (E).",
        KLPFS,  # where a story sets all taints by hand
        ((r"^(--- tainted )(\d+)$", _as_if_signed), (r"(Tainted: .{13})E", r"\1 ")),
    ),
    Expected(
        "The embedded kernel has one processor, no modversions and no need of page table isolation.",
        QEMU,
        (
            (r"'RELEASE SMP preempt mod_unlo(..) modversions '", r"'RELEASE preempt mod_unlo\1 '"),
            (r"^(<\d>.*: [0-9a-f]{4} \[#\d\] PREEMPT) SMP NOPTI$", r"\1"),
        ),
    ),
    Expected(
        "Debian's build makes sections and symbols that klpfs build has no need of: tables of objtool, "
        "checksums, an ELF note, entry points apart.",
        QEMU,
        (
            (
                _section(
                    r"\.exit\.data|\.init\.data|\.note\.Linux|\.orc_unwind|\.orc_unwind_ip|\.return_sites"
                ),
                "",
            ),
            (r"^-r--r--r-- 1 0:0 60 \S+/notes/\.note\.Linux\n", ""),
            (
                r"^ADDRESS [a-z?] (__UNIQUE_ID_\w+|____versions|__x86_return_thunk|_note_\d+)\t.*\n",
                "",
            ),
            (
                r"^(<3>Invalid ELF section name index: )40 \|\| e_shstrndx \(40\)",
                r"\1N || e_shstrndx (N)",
            ),
            (r"^(<3>Invalid ELF section name index: .* e_shnum )\(4\d\)$", r"\1(M)"),
        ),
    ),
    Expected(
        "Debian's build makes sections and symbols that klpfs build has no need of: tables of objtool, "
        "checksums, an ELF note, entry points apart.",
        KLPFS,
        (
            (r"^ADDRESS \? __UNIQUE_ID_\w+\t.*\n", ""),
            (
                r"^(<3>Invalid ELF section name index: )17 \|\| e_shstrndx \(17\)",
                r"\1N || e_shstrndx (N)",
            ),
            (r"^(<3>Invalid ELF section name index: .* e_shnum )\(1\d\)$", r"\1(M)"),
        ),
    ),
)
"""On the embedded kernel, with modules built by klpfs build."""
