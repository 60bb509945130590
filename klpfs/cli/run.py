# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs run``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from klpfs import control
from klpfs.cli.options import (
    EMBEDDED,
    KERNEL_METAVAR,
    abi_options,
    errors_reported,
    load_image,
    mount_option,
)
from klpfs.mounting import daemon, mounts


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]..."
)
@click.option(
    "--kernel", metavar=KERNEL_METAVAR,
    help="Use a private machine with this kernel instead of a mounted one.",
)  # fmt: skip
@abi_options
@click.option(
    "--modules", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Let modprobe find the modules in DIRECTORY. Can be given several times.",
)  # fmt: skip
@mount_option
@click.pass_context
def run(
    ctx: click.Context,
    command: tuple[str, ...],
    *,
    kernel: str | None,
    abi: str | None,
    modules: tuple[Path, ...],
) -> None:
    """Run COMMAND with the machine in place of the host's kernel.

    COMMAND sees the machine's /proc, /sys, /dev/kmsg, /lib/modules and uname. The system calls of
    insmod, rmmod and dmesg go to the machine. Processes, files and the network are the host's.

    If no machine is mounted, COMMAND gets a private one that ends with its last process.

    Exit status: that of COMMAND, 127 if it is not found, 126 if it cannot be executed.

    \b
    Example:
      klpfs run --modules . modprobe patch
    """
    from klpfs.machine.image import ImageError
    from klpfs.mounting.kernel_tree import kernel_tree
    from klpfs.running import run as running

    def mount_private(mountpoint: Path) -> None:
        # COMMAND may change its user when root runs it, and the other user needs /proc too.
        allow_other = os.geteuid() == 0
        name = kernel or EMBEDDED
        make_tree = kernel_tree(load_image(name, abi), command_line=f"BOOT_IMAGE={name}")
        daemon.serve(make_tree, mountpoint, allow_other=allow_other)

    private = kernel or abi
    if private and ctx.obj:
        raise click.UsageError(
            "-m cannot be used with --kernel, --abi or --no-livepatch: the kernel of a mounted "
            "machine cannot be changed"
        )
    with errors_reported(control.NoMachine, mounts.MountError, ImageError, running.RunError):
        machine = None if private else running.find_machine(ctx.obj)
        running.run(command, machine, mount_private, modules)
