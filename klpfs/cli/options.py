# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several subcommands share, and the machine or kernel that they name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from klpfs import control
from klpfs.modules import abi as abis
from klpfs.terminal import printable

if TYPE_CHECKING:
    from klpfs.machine.image import Image

EMBEDDED = "embedded"
"""The value of ``--kernel`` that means klpfs's own kernel."""
KERNEL_METAVAR = "embedded|VMLINUZ"


@contextmanager
def errors_reported(*kinds: type[Exception]) -> Iterator[None]:
    """Report exceptions of these kinds in one line on standard error, with exit status 1."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from None


def mount_option(function: click.decorators.FC) -> click.decorators.FC:
    """Add ``-m MOUNTPOINT``, which `find_machine` reads."""

    def store(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value:
            ctx.obj = value

    return click.option(
        "-m", "--mount", metavar="MOUNTPOINT", expose_value=False, callback=store,
        help="Use the machine mounted on MOUNTPOINT.  [default: $KLPFS_MOUNT, or the only one "
        "that is mounted]",
    )(function)  # fmt: skip


def find_machine(ctx: click.Context) -> Path:
    """Return the mount point of the machine that the command is for."""
    with errors_reported(control.NoMachine):
        return control.find_machine(ctx.obj)


def abi_options(function: click.decorators.FC) -> click.decorators.FC:
    """Add ``--abi`` and ``--no-livepatch`` as one parameter ``abi``, None if neither is given."""

    def store_none(ctx: click.Context, _param: click.Parameter, disabled: bool) -> None:
        if disabled:
            ctx.meta["abi"] = abis.NONE

    def combine(ctx: click.Context, _param: click.Parameter, abi: str | None) -> str | None:
        none: str | None = ctx.meta.get("abi")
        if none and abi:
            raise click.UsageError("--abi and --no-livepatch cannot be used together")
        return none or abi

    abi_option = click.option(
        "--abi", type=click.Choice(abis.NAMES), callback=combine,
        help="Provide the live patching API of this kernel release.",
    )  # fmt: skip
    no_livepatch_option = click.option(
        "--no-livepatch", is_flag=True, is_eager=True, expose_value=False, callback=store_none,
        help="Use a kernel without live patching.",
    )  # fmt: skip
    return abi_option(no_livepatch_option(function))


def load_image(kernel: str, abi: str | None) -> Image:
    """Return the kernel that ``--kernel`` and ``--abi`` name.

    Raise `klpfs.machine.image.ImageError` if it cannot be used.
    """
    from klpfs.machine.image import distribution, embedded

    if kernel != EMBEDDED:
        if abi:
            raise click.UsageError(
                f"--abi and --no-livepatch are for the embedded kernel: {kernel} has its own "
                "live patching API"
            )
        return distribution.load(Path(kernel), progress=_progress_printer())
    try:
        return embedded.load(progress=_progress_printer(), abi=abi or abis.LATEST)
    except OSError as error:
        raise click.ClickException(
            f"cannot write the compiled kernel to the cache: {error.filename}: {error.strerror}; "
            "set $XDG_CACHE_HOME to a writable directory"
        ) from None


def _progress_printer() -> Callable[[str], None] | None:
    """Return a function that prints a progress message, or None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return None
    return lambda line: click.echo(printable(line), err=True)
