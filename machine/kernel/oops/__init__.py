# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of guest code: exceptions, exception fixups, taints, watchdogs, reports of the allocator."""
