# SPDX-License-Identifier: GPL-2.0-or-later
"""klpfs as a user installs it: what git would check out, built and installed by pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHIPPED = ("klpfs", "machine", "modules")
"""The directories of the repository that are installed, all as part of the package klpfs."""
LINKS = {"klpfs/machine", "klpfs/modules"}
"""The links to the other two. In an sdist, and where klpfs is installed, they are directories."""
NO_INDEX = re.compile(r".*\(from versions: none\)|.*NewConnectionError.*")
"""A line of pip's where it cannot reach an index. A wrong requirement has versions to choose from."""
SECONDS = 300
"""Long enough to download and compile what pip has not in its cache, on a busy machine."""


def tracked_files() -> list[str]:
    """Return the files of the checkout. Skip the test in an unpacked sdist, which is none."""
    if not os.path.lexists(REPOSITORY / ".git"):
        pytest.skip("this is not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [
        name for name in listed.stdout.split("\0") if name and os.path.lexists(REPOSITORY / name)
    ]


def shipped_files() -> set[str]:
    """Return where the installed files of the checkout are, below site-packages."""
    names = (name for name in tracked_files() if name.split("/")[0] in SHIPPED)
    return {name if name.startswith("klpfs/") else f"klpfs/{name}" for name in names} - LINKS


def checked_out(directory: Path) -> Path:
    """Make ``directory`` a copy of the repository as git would check it out, and return it."""
    for name in tracked_files():
        copy = directory / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy, follow_symlinks=False)
    return directory


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed, and return its output. It does not see this klpfs."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "KLPFS"))
    }
    done = subprocess.run(
        list(command), cwd=cwd, env={**variables, **environment}, timeout=SECONDS, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode and (found := NO_INDEX.search(done.stdout)):
        pytest.skip(f"pip finds no package index: {found[0]}")
    assert done.returncode == 0, done.stdout
    return done.stdout
