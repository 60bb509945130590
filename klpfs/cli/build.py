# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs build``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from klpfs.modules import abi as abis
from klpfs.terminal import LINES, printable


@click.command()
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE.c..."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIRECTORY",
    help="Write the .ko files to DIRECTORY.  [default: next to each source]",
)  # fmt: skip
@click.option("-g", "debug", is_flag=True, help="Include debug information.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--abi", type=click.Choice(abis.NAMES), default=abis.LATEST, show_default=True,
    help="Build for the live patching API of this kernel release.",
)  # fmt: skip
def build(
    sources: tuple[Path, ...], *, output: Path | None, debug: bool, quiet: bool, abi: str
) -> None:
    """Build a module from each SOURCE.c, for the embedded kernel.

    \b
    Example:
      klpfs build patch.c -o /tmp
    """
    from klpfs.modules import kbuild

    def print_step(line: str) -> None:
        if not quiet:
            click.echo(f"  {printable(line)}")

    def print_warnings(text: str) -> None:
        click.echo(printable(text, LINES), err=True, nl=False)

    for source in sources:
        if not source.is_file():
            raise click.ClickException(printable(f"{source}: no such file"))
    try:
        kbuild.build(
            sources,
            output,
            debug=debug,
            abi=abi,
            on_step=print_step,
            on_message=print_warnings,
        )
    except kbuild.CompileError as error:
        click.echo(printable(str(error).rstrip("\n"), LINES), err=True)
        sys.exit(1)
    except ValueError as error:  # with the name of a file
        raise click.ClickException(printable(str(error))) from None
    except kbuild.ToolchainError as error:
        raise click.ClickException(str(error)) from None
