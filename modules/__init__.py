# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel headers for modules, and the module build."""
