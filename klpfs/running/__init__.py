# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs run``: a program and its descendants see the guest's kernel instead of the host's."""
