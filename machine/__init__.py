# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated x86-64 computer, and the kernel services that run on it."""
