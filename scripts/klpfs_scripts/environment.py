# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment that scripts run in: Debian packages, and a Python that has klpfs (setup.sh)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from klpfs_scripts.command import ScriptError

SCRIPTS = Path(__file__).resolve().parent.parent
ROOT = SCRIPTS.parent
"""The repository."""
SAMPLE = ROOT / "modules/samples/livepatch-sample.c"
"""The source of the sample patch."""


def klpfs(python: str = sys.executable) -> list[str]:
    """Return the command of klpfs. No module in the working directory can take the place of its own."""
    return [python, "-P", "-m", "klpfs"]


def set_up(*packages: str) -> str:
    """Install klpfs, and Debian's ``packages``, where they are missing.

    Without apt-get, no package is installed. Returns the path of the interpreter that has klpfs.
    Raises `ScriptError`.
    """
    script = (
        'packages=("$@"); set --; source "$0"; '
        '! command -v apt-get >/dev/null || apt_install "${packages[@]}"; echo "$python"'
    )
    command = ["bash", "-c", script, str(SCRIPTS / "setup.sh"), *packages]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    python = shutil.which(done.stdout.strip())
    if done.returncode or python is None:
        raise ScriptError(f"{SCRIPTS / 'setup.sh'} failed")
    return os.path.abspath(python)


def enter(*packages: str, path: Sequence[Path] = ()) -> None:
    """Go on with the script in the interpreter that has klpfs: start it again there, if need be.

    ``packages`` are Debian's, to be installed. ``path`` are directories to import from. Raises
    `ScriptError`.
    """
    python = set_up(*packages)
    os.environ["KLPFS_PYTHON"] = python  # scripts that this one runs need not look again
    missing = [str(directory) for directory in path if str(directory) not in sys.path]
    if sys.executable != python or missing:
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*missing, *([before] if before else [])])
        os.execv(python, [python, *sys.argv])
