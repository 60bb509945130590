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
)
"""Whichever kernel klpfs has."""

EMBEDDED = (
    Expected(
        "The embedded kernel checks no signatures, so a module is not tainted as unsigned (E).",
        QEMU,
        (
            (r"^<5>\w+: module verification failed: signature and/or required key missing.*\n", ""),
            (r"^(--- tainted |kernel\.tainted = )(\d+)$", _as_if_signed),
            (r"(\(O|^    O)E(?=K?\)?$)", r"\1"),
        ),
    ),
    Expected(
        "It was not booted with the same command line.",
        QEMU,
        ((r"^console=ttyS0 .*$", "BOOT_IMAGE=/boot/vmlinuz-RELEASE root=/dev/ram0 ro quiet"),),
    ),
)
"""On the embedded kernel, with modules built by klpfs build."""
