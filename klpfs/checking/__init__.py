# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs check``: whether a live patch loads, applies and can be removed."""
