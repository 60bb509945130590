# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of guest code: exceptions, their fixups, taints, watchdogs, allocator errors."""
