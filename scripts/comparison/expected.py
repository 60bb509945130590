# SPDX-License-Identifier: GPL-2.0-or-later
"""Differences between a kernel booted in QEMU and a kernel of klpfs that are right, with their
reasons."""

from __future__ import annotations

import re

from comparison.compare import KLPFS, QEMU, Expected

TAINT_UNSIGNED_MODULE = 1 << 13


def _as_if_signed(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) & ~TAINT_UNSIGNED_MODULE}"


def _section(names: str) -> str:
    """Return a pattern for lines of sys/module/<module>/sections."""
    return rf"^-r-------- 1 0:0 19 \S+/sections/({names})\n    ADDRESS\n"


_COMMAND_LINE = ((r"^(console=ttyS0 |BOOT_IMAGE=).*$", "THE COMMAND LINE"),)
_SHADOW_SAMPLES = ((r"^<6>(livepatch_shadow_fix\d: livepatch_fix\d_)?dummy_\w+: dummy @ .*\n", ""),)

ALWAYS = (
    Expected("The two kernels have different command lines.", QEMU, _COMMAND_LINE),
    Expected("The two kernels have different command lines.", KLPFS, _COMMAND_LINE),
    Expected(
        "A computer that QEMU emulates is sometimes too slow for its clocks.",
        QEMU,
        ((r"^<\d>(hrtimer: interrupt took|clocksource: |rcu: INFO|sched: RT throttling).*\n", ""),),
    ),
    Expected(
        "The number of messages of the shadow variable samples depends on the time that they run.",
        QEMU,
        _SHADOW_SAMPLES,
    ),
    Expected(
        "The number of messages of the shadow variable samples depends on the time that they run.",
        KLPFS,
        _SHADOW_SAMPLES,
    ),
    Expected(
        "klpfs does not keep a module's file in guest memory: its symbol table, and sections that are "
        "dropped after loading, have no address.",
        QEMU,
        ((_section(r"\.symtab|\.strtab"), ""),),
    ),
    Expected(
        "klpfs does not keep a module's file in guest memory: its symbol table, and sections that are "
        "dropped after loading, have no address.",
        KLPFS,
        ((r"^POINTER \? ", "ADDRESS ? "),),
    ),
    Expected(
        "klpfs has no random numbers for the key with which %p hashes pointers.",
        KLPFS,
        ((r"\(____ptrval____\)", "POINTER"),),
    ),
    Expected(
        "Under klpfs run, a process is a task of the host's kernel, and has no patch_state.",
        KLPFS,
        ((r"^cat: /proc/self/patch_state: No such file or directory\n\(status 1\)$", "-1"),),
    ),
    Expected(
        "A FUSE file system cannot serve a character device: dev/kmsg is a file.",
        KLPFS,
        ((r"(/dev/kmsg\n)-(rw-r--r-- 0:0) 0,0$", r"\1c\2 1,b"),),
    ),
)
"""The differences on every kernel of klpfs."""

EMBEDDED = (
    *(
        Expected(
            "The sizes of functions and modules depend on the compiler.",
            side,
            (
                (r"^(misbe\w+|any_patc\w) \d+(?= \d+ - L)", r"\1 SIZE"),
                (r"(?<=\+0x0)/0x[0-9a-f]+", "/SIZE"),
                (r"(?<=\+ADDRESS)/0x[0-9a-f]+", "/SIZE"),
            ),
        )
        for side in (QEMU, KLPFS)
    ),
    Expected(
        "The embedded kernel checks no signatures: an unsigned module does not taint it (E).",
        QEMU,
        (
            (
                r"^(<5>|5,N,N,-;|kern  :notice: |)\w+: module verification failed: signature and/or .*\n",
                "",
            ),
            (r"^(--- tainted |kernel\.tainted = )(\d+)$", _as_if_signed),
            (r"(\(O|^O|^    O)E(?=K?[+-]?\)?$)", r"\1"),
            (r"(Tainted: .{13})E", r"\1 "),
        ),
    ),
    Expected(
        "The embedded kernel checks no signatures: an unsigned module does not taint it (E).",
        KLPFS,  # where a story sets the taints itself
        ((r"^(--- tainted )(\d+)$", _as_if_signed), (r"(Tainted: .{13})E", r"\1 ")),
    ),
    Expected(
        "The embedded kernel has one processor, no modversions and no page table isolation.",
        QEMU,
        (
            (r"'RELEASE SMP preempt mod_unlo(..) modversions '", r"'RELEASE preempt mod_unlo\1 '"),
            (r"^(<\d>.*: [0-9a-f]{4} \[#\d\] PREEMPT) SMP NOPTI$", r"\1"),
        ),
    ),
    Expected(
        "Debian's build adds sections and symbols that klpfs build does not: tables of objtool, checksums, "
        "an ELF note, separate entry points.",
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
        "Debian's build adds sections and symbols that klpfs build does not: tables of objtool, checksums, "
        "an ELF note, separate entry points.",
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
"""More differences on the embedded kernel, with modules built by klpfs build."""
