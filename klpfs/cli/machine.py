# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that act on a mounted machine: ``insmod``, ``rmmod``, ``lsmod`` and ``dmesg``.

Their options and messages are those of kmod and util-linux.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import click

from klpfs import control
from klpfs.cli.options import find_machine, mount_option
from klpfs.terminal import LOG, printable

_INSMOD_ERRORS = {
    errno.ENOEXEC: "Invalid module format",
    errno.ENOENT: "Unknown symbol in module",
    errno.ESRCH: "Module has wrong symbol version",
    errno.EINVAL: "Invalid parameters",
}
"""What insmod(8) prints for an errno (``mod_strerror`` of kmod)."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "-f", "--force", is_flag=True, help="Ignore the module's version magic and symbol versions."
)
@mount_option
@click.pass_context
def insmod(ctx: click.Context, file: Path, parameters: tuple[str, ...], force: bool) -> None:
    """Load the module FILE, with module parameters NAME=VALUE.

    \b
    Example:
      klpfs insmod patch.ko number=3
    """
    machine = find_machine(ctx)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"could not load module {file}: {error.strerror}") from None
    try:
        control.insmod(machine, data, parameters, force=force)
    except OSError as error:
        number = error.errno or 0
        why = _INSMOD_ERRORS.get(number, os.strerror(number))
        raise click.ClickException(f"could not insert module {file}: {why}") from None


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "-f", "--force", is_flag=True, help="Unload a module even if it is in use or has no exit."
)
@mount_option
@click.pass_context
def rmmod(ctx: click.Context, names: tuple[str, ...], force: bool) -> None:
    """Unload the modules with these NAMEs.

    Exit status: 1 if any of them could not be unloaded.
    """
    machine = find_machine(ctx)
    failed = False
    for name in names:
        try:
            control.rmmod(machine, name, force=force)
        except OSError as error:
            failed = True
            if error.errno == errno.ENOENT:
                why = f"Module {name} is not currently loaded"
            elif error.errno == errno.EWOULDBLOCK:
                holders = " ".join(control.holders(machine, name))
                why = f"Module {name} is in use{' by: ' + holders if holders else ''}"
            else:
                why = f"could not remove '{name}': {error.strerror}"
            click.echo(printable(f"Error: {why}"), err=True)
    if failed:
        sys.exit(1)


@click.command()
@mount_option
@click.pass_context
def lsmod(ctx: click.Context) -> None:
    """List the loaded modules."""
    machine = find_machine(ctx)
    click.echo("Module                  Size  Used by")
    for module in control.lsmod(machine):
        users = ",".join(map(printable, module.users))
        count = f"{module.refcount}{' ' + users if users else ''}"
        click.echo(f"{printable(module.name):<19} {module.size:>8}  {count}")


@click.command()
@click.option("-w", "--follow", is_flag=True, help="Wait for new messages.")
@click.option("-C", "--clear", is_flag=True, help="Clear the log, and print nothing.")
@mount_option
@click.pass_context
def dmesg(ctx: click.Context, follow: bool, clear: bool) -> None:
    """Print the kernel log."""
    machine = find_machine(ctx)
    for number in (signal.SIGINT, signal.SIGPIPE):  # end like any filter, without a traceback
        signal.signal(number, signal.SIG_DFL)
    if clear:
        control.clear_log(machine)
        return
    for line in control.follow(machine) if follow else [control.dmesg(machine)]:
        click.echo(printable(line, LOG), nl=False)
