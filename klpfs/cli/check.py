# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from klpfs.cli.options import EMBEDDED, KERNEL_METAVAR, abi_options, errors_reported, load_image

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("patch", type=_FILE, metavar="PATCH.ko")
@click.option(
    "--kernel", default=EMBEDDED, show_default=True, metavar=KERNEL_METAVAR,
    help="Try the patch on klpfs's own kernel or on a distribution's kernel file.",
)  # fmt: skip
@abi_options
@click.option(
    "--module", "modules", multiple=True, type=_FILE, metavar="FILE.ko",
    help="Load this module before the patch. Can be given several times.",
)  # fmt: skip
@click.option(
    "--call", "calls", multiple=True, metavar="FUNCTION(ARGUMENT, ...)",
    help="Call a kernel function before and after the patch is enabled, and show both results. "
    'Arguments are numbers, strings in double quotes, or seq for a seq_file. Can be given '
    "several times.",
)  # fmt: skip
@click.option(
    "--wait", default=60.0, show_default=True, metavar="SECONDS",
    help="Fail if a transition takes longer than this (guest seconds).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    patch: Path,
    *,
    kernel: str,
    abi: str | None,
    modules: tuple[Path, ...],
    calls: tuple[str, ...],
    wait: float,
    as_json: bool,
) -> None:
    """Check whether the live patch PATCH.ko works on a kernel.

    The patch is loaded, enabled, disabled and unloaded on a private machine.

    Exit status: 0 if the patch works, 1 if it would fail, 2 if klpfs could not tell.

    \b
    Example:
      klpfs check patch.ko --kernel /boot/vmlinuz-6.1.0-56-amd64
    """
    from klpfs.checking import check as checking
    from klpfs.checking.report import Verdict, print_table
    from klpfs.machine.image import ImageError

    with errors_reported(ImageError, ValueError):
        report = checking.check(
            load_image(kernel, abi),
            patch.read_bytes(),
            modules=[module.read_bytes() for module in modules],
            calls=calls,
            wait=wait,
        )
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        print_table(report)
    sys.exit({Verdict.GOOD: 0, Verdict.BAD: 1}.get(report.verdict, 2))
