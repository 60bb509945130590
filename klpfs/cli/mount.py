# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs mount`` and ``klpfs umount``."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import click

from klpfs.cli.options import EMBEDDED, KERNEL_METAVAR, abi_options, errors_reported, load_image
from klpfs.mounting import daemon, mounts

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MIN_MEMORY, _MAX_MEMORY = 32 << 20, 16 << 30
_MEMORY_ALIGNMENT = 2 << 20


def _parse_size(_ctx: click.Context, _param: click.Parameter, text: str) -> int:
    """Return a size in bytes. ``text`` is a number with an optional unit: K, M or G."""
    found = re.fullmatch(r"([0-9]+)([kmg]?)(i?b)?", text.lower())
    if not found:
        raise click.ClickException(f"--memory: {text!r} is not a size; use one such as 256M")
    size = int(found[1]) * _UNITS[found[2]]
    if not _MIN_MEMORY <= size <= _MAX_MEMORY:
        raise click.ClickException(f"--memory: {text} is out of range; use 32M to 16G")
    return size & -_MEMORY_ALIGNMENT


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option(
    "--kernel", default=EMBEDDED, show_default=True, metavar=KERNEL_METAVAR,
    help="Mount klpfs's own kernel or a distribution's kernel file.",
)  # fmt: skip
@abi_options
@click.option("--append", metavar="CMDLINE", help="Set the kernel command line.")
@click.option(
    "--memory", callback=_parse_size, default="256M", show_default=True, metavar="SIZE",
    help="Set the size of the machine's RAM, 32M to 16G.",
)  # fmt: skip
@click.option(
    "--virtual-time", is_flag=True, help="Let time pass only when machine/clock is written."
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N",
    help="Choose the order of tasks in virtual time.",
)  # fmt: skip
@click.option("--foreground", is_flag=True, help="Serve the mount in this process until it ends.")
@click.option("--allow-other", is_flag=True, help="Let other users in, as far as file modes allow.")
@click.option(
    "--log-file", type=click.Path(path_type=Path), metavar="FILE",
    help="Append the daemon's errors to FILE.",
)  # fmt: skip
def mount(
    mountpoint: Path,
    *,
    kernel: str,
    abi: str | None,
    append: str | None,
    memory: int,
    virtual_time: bool,
    seed: int | None,
    foreground: bool,
    allow_other: bool,
    log_file: Path | None,
) -> None:
    """Mount a machine on the directory MOUNTPOINT.

    The command returns when the machine answers. A daemon serves the mount until 'klpfs umount'.

    \b
    Example:
      klpfs mount --virtual-time /tmp/k
    """
    from klpfs.machine.image import ImageError
    from klpfs.mounting.kernel_tree import kernel_tree

    if seed is not None and not virtual_time:
        raise click.UsageError("--seed requires --virtual-time: real time cannot be repeated")
    with errors_reported(mounts.MountError, ImageError):
        daemon.check_mountpoint(mountpoint)
        daemon.serve(
            kernel_tree(
                load_image(kernel, abi),
                memory_size=memory,
                virtual_time=virtual_time,
                seed=seed or 0,
                command_line=append or f"BOOT_IMAGE={kernel}",
            ),
            mountpoint,
            allow_other=allow_other,
            foreground=foreground,
            log_file=log_file,
        )


@click.command()
@click.argument("mountpoint", type=Path)  # click.Path would call stat(2), which a dead mount blocks
@click.option("--lazy", is_flag=True, help="Detach the mount now, even if files in it are open.")
def umount(mountpoint: Path, lazy: bool) -> None:
    """Unmount MOUNTPOINT and stop its machine.

    The command returns when the mount and its daemon are gone. It also removes a mount whose daemon
    was killed.
    """
    try:
        with errors_reported(mounts.MountError):
            mounts.unmount(mountpoint, lazy=lazy)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise click.ClickException(
            f"{mountpoint}: target is busy; run 'fuser -vm {mountpoint}' to see which processes "
            "use it, or use --lazy"
        ) from None
