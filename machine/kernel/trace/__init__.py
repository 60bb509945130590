# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel text that changes at run time: ftrace, the function tracer, text poking, jump labels."""
