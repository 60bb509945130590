# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m klpfs``.

Python looks for modules in the current directory first. A project's own ``click.py`` or ``trio.py``
would be imported instead of the package that klpfs needs, so that directory comes last here.
"""

import os
import sys

try:
    _current_first = sys.path[0] == os.getcwd() and not sys.flags.safe_path
except FileNotFoundError:  # the current directory was removed
    _current_first = False
if _current_first:
    sys.path.append(sys.path.pop(0))

from klpfs.cli import main

main(prog_name="klpfs")
