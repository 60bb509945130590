# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m klpfs``."""

from klpfs.cli import main

main(prog_name="klpfs")
