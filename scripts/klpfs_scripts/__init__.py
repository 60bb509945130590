# SPDX-License-Identifier: GPL-2.0-or-later
"""What several scripts share: options and errors, the environment, progress, Debian's kernels,
QEMU."""
