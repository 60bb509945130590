# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell scripts that both kernels run: scripts/stories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klpfs_scripts.environment import SCRIPTS

DIRECTORY = SCRIPTS / "stories"


@dataclass(frozen=True)
class StoryFile:
    """A story, by its file."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the file, as words."""
        return self.path.stem.lstrip("0123456789-").replace("-", " ")

    def script(self) -> str:
        """Return the shell script that runs the story: it prints the name, then what the story
        prints."""
        prelude = (DIRECTORY / "prelude.sh").read_text()
        return f"{prelude}\nbegin '{self.name}'\n(\n{self.path.read_text()}\n)\n"


def all_stories() -> list[StoryFile]:
    """Return the stories of scripts/stories, in their order."""
    return [StoryFile(path) for path in sorted(DIRECTORY.glob("[0-9]*.sh"))]


def module_sources() -> Sequence[Path]:
    """Return the sources of the modules that only the stories need."""
    return sorted(DIRECTORY.glob("modules/*.c"))
