# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``klpfs``: one module for each group of subcommands.

A subcommand imports what it needs when it runs, so that ``klpfs dmesg`` loads neither trio nor unicorn.
"""

from __future__ import annotations

import errno
import os

import click

from klpfs.cli import build, check, example, machine, mount, run
from klpfs.cli.options import mount_option


class _CommandGroup(click.Group):
    """A group whose commands report an OSError in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has exited; click handles it
                raise
            where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="klpfs")
@mount_option
def main() -> None:
    """Mount a live-patchable x86-64 Linux kernel as a directory.

    \b
    Example:
      klpfs mount /tmp/k
      klpfs insmod patch.ko
      cat /tmp/k/sys/kernel/livepatch/patch/enabled
      klpfs umount /tmp/k
    """


for _command in (
    mount.mount,
    mount.umount,
    machine.insmod,
    machine.rmmod,
    machine.lsmod,
    machine.dmesg,
    build.build,
    check.check,
    run.run,
    example.command,
):
    main.add_command(_command)
