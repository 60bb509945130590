# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system: FUSE requests, the tree of nodes, and the files of sysfs, procfs and the others."""
