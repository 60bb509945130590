# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs example``, which writes sample modules. Their sources are in modules/samples/."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click

import klpfs.modules

SAMPLES = Path(klpfs.modules.__path__[0]).resolve() / "samples"
"""The directory with all sources."""


class Example(NamedTuple):
    """C sources that belong together."""

    description: str
    files: tuple[str, ...]


EXAMPLES = {
    "livepatch-sample": Example("A patch of the function behind /proc/cmdline", ("livepatch-sample.c",)),
    "sleeper": Example(
        "A kernel thread that sleeps, and a patch that stalls on it", ("sleeper.c", "sleeper-patch.c")
    ),
    "module": Example(
        "A module with a file in /proc, and a patch of that module", ("greeting.c", "greeting-patch.c")
    ),
    "callbacks": Example(
        "A patch whose callbacks log when they are called, and can refuse",
        ("callbacks-target.c", "callbacks-patch.c"),
    ),
    "shadow": Example(
        "A patch that adds a member to a structure with a shadow variable",
        ("shadow-target.c", "shadow-patch.c"),
    ),
    "replace": Example(
        "Two cumulative patches: the second replaces the first", ("replace-first.c", "replace-second.c")
    ),
}  # fmt: skip


@click.command("example")
@click.argument("name", required=False)
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def command(name: str | None, directory: Path, force: bool) -> None:
    """Write the C sources of the example NAME into DIRECTORY, by default the current one.

    Without NAME, list the examples.

    \b
    Example:
      klpfs example sleeper
      klpfs build sleeper.c sleeper-patch.c
    """
    if name is None:
        width = max(map(len, EXAMPLES))
        for key, example in EXAMPLES.items():
            click.echo(f"{key:<{width}}  {example.description}")
        return
    for file in write(name, directory, force=force):
        click.echo(file)


def write(name: str, directory: Path, *, force: bool = False) -> list[Path]:
    """Write the files of an example into ``directory``, which is created if needed; return their paths.

    Raises ClickException if there is no such example, or if a file exists and ``force`` is not set; then
    nothing is written. Raises OSError if a file cannot be written.
    """
    example = EXAMPLES.get(name)
    if example is None:
        raise click.ClickException(
            f"no example is called {name!r}; there are {', '.join(EXAMPLES)}"
        )
    targets = [directory / file for file in example.files]
    present = [str(target) for target in targets if target.exists()]
    if present and not force:
        raise click.ClickException(f"{', '.join(present)} already exists; use --force to overwrite")
    directory.mkdir(parents=True, exist_ok=True)
    for target in targets:
        target.write_text((SAMPLES / target.name).read_text())
    return targets
