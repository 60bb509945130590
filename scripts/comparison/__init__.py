# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of two kernels by scripts/compare-with-qemu: what runs, and what counts as a
difference."""
