# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log and dynamic debug: kernel/printk/ and lib/dynamic_debug.c of Linux."""
