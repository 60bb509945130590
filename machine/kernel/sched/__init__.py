# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks, the scheduler, waiting, and stack traces: kernel/sched/ of Linux."""
