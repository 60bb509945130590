# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounting and unmounting: the daemon behind a mount, and how it is found."""
