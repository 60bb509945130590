# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between a kernel booted in QEMU and one of klpfs, and why that is as it should be."""

from __future__ import annotations

import re

from comparison import KLPFS, QEMU, Expected

TAINT_UNSIGNED_MODULE = 1 << 13


def _as_if_signed(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) & ~TAINT_UNSIGNED_MODULE}"


ALWAYS = (
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
    Expected(
        "The embedded kernel checks no signatures, so a module is not tainted as unsigned (E).",
        QEMU,
        (
            (r"^(<5>|5,N,N,-;)?\S+: module verification failed: signature and/or required key missing.*\n", ""),
            (r"^(--- tainted |kernel\.tainted = )(\d+)$", _as_if_signed),
            (r"(\(O|^    O)E(?=K?\)?$)", r"\1"),
        ),
    ),
    Expected(
        "It was not booted with the same command line.",
        QEMU,
        ((r"^console=ttyS0 .*$", "BOOT_IMAGE=/boot/vmlinuz-RELEASE root=/dev/ram0 ro quiet"),),
    ),
    Expected(
        "Modules are built for another kernel, by another build system: Debian's have sections for "
        "objtool's tables, for what is in no function, and the symbol table, which klpfs keeps outside.",
        QEMU,
        (
            (
                r"^-r-------- 1 0:0 19 \S+/sections/"
                r"(\.exit\.data|\.init\.data|\.note\.Linux|\.orc_unwind|\.orc_unwind_ip"
                r"|\.return_sites|\.symtab|\.strtab)\n    ADDRESS\n",
                "",
            ),
            (r"^-r--r--r-- 1 0:0 60 \S+/notes/\.note\.Linux\n", ""),
            (r"^(<3>Invalid ELF section name index: )40 \|\| e_shstrndx \(40\)", r"\1N || e_shstrndx (N)"),
            (r"^(<3>Invalid ELF section name index: .* e_shnum )\(4\d\)$", r"\1(M)"),
            (r"'RELEASE SMP preempt mod_unlo(..) modversions '", r"'RELEASE preempt mod_unlo\1 '"),
            (
                r"^ADDRESS [a-z?] (__UNIQUE_ID_\w+|____versions|__x86_return_thunk|_note_\d+)"
                r"\t\[livepatch_sample\]\n",
                "",
            ),
        ),
    ),
    Expected(
        "Modules are built for another kernel, by another build system: Debian's have sections for "
        "objtool's tables, for what is in no function, and the symbol table, which klpfs keeps outside.",
        KLPFS,
        (
            (r"^(<3>Invalid ELF section name index: )17 \|\| e_shstrndx \(17\)", r"\1N || e_shstrndx (N)"),
            (r"^(<3>Invalid ELF section name index: .* e_shnum )\(1\d\)$", r"\1(M)"),
            (r"^[0-9a-f]{16} \? __UNIQUE_ID_\w+\t\[livepatch_sample\]\n", ""),
        ),
    ),
    Expected(
        "How much the shadow variable samples say depends on how long they are left alone.",
        QEMU,
        ((r"^<\d>(livepatch_shadow_fix\d: )?(livepatch_fix\d_)?dummy_\w+: dummy @ .*\n", ""),),
    ),
    Expected(
        "How much the shadow variable samples say depends on how long they are left alone.",
        KLPFS,
        ((r"^<\d>(livepatch_shadow_fix\d: )?(livepatch_fix\d_)?dummy_\w+: dummy @ .*\n", ""),),
    ),
)
"""On the embedded kernel, with modules built by klpfs build."""
