# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs check``: try a live patch on a private machine, and report what would fail."""
