# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel services in Python: what stands in for an exported function, and the core around it."""
