# SPDX-License-Identifier: GPL-2.0-or-later
"""A live-patchable Linux machine, mounted as a directory."""
