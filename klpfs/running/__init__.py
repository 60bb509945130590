# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs run``: a process tree whose kernel is the machine's."""
