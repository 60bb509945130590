# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log: kernel/printk/ of Linux, and dynamic debug."""
