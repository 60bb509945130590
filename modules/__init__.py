# SPDX-License-Identifier: GPL-2.0-or-later
"""The C side: the kernel headers that modules see, and the build that makes a module of them."""
