# SPDX-License-Identifier: GPL-2.0-or-later
"""Sleeping locks, kernel threads, workqueues, timers and RCU."""
