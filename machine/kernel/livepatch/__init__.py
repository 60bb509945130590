# SPDX-License-Identifier: GPL-2.0-or-later
"""Live patching, as kernel/livepatch/ of Linux 6.1 does it, file by file."""
