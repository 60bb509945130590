# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of x86 exceptions, arch/x86/include/asm/trapnr.h."""

from __future__ import annotations

BREAKPOINT = 3
INVALID_OPCODE = 6
GENERAL_PROTECTION = 13
PAGE_FAULT = 14
FIRST_EXTERNAL_VECTOR = 32
"""The first vector that is not an exception, arch/x86/include/asm/irq_vectors.h."""
