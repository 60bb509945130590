# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks and the scheduler, waiting, stacks of tasks: kernel/sched/ of Linux."""
