# SPDX-License-Identifier: GPL-2.0-or-later
"""Code that changes while it runs: ftrace, the function tracer, text poking, jump labels."""
