# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel services in Python: replacements of kernel functions, and the livepatch core."""
