# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system: FUSE requests, the tree of nodes behind them, and the files of each part of it."""
