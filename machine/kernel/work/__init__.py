# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that waits or runs later: locks, kernel threads, workqueues, timers, RCU."""
