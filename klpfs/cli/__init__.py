# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``klpfs``: one module for each group of subcommands.

A subcommand imports what it needs when it runs, so that ``klpfs dmesg`` loads neither trio nor unicorn.
"""

from __future__ import annotations

import errno
import io
import os
import sys

import click

from klpfs.cli import build, check, example, machine, mount, run
from klpfs.cli.options import mount_option
from klpfs.terminal import LINES, printable


class _CommandGroup(click.Group):
    """A group whose commands report an OSError in one line, without a traceback.

    Errors are made safe to print: names of files and guest data are in them.
    """

    def invoke(self, ctx: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # the locale may lack a character
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = printable(error.message, LINES)  # type: ignore[misc]
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has exited; click handles it
                raise
            where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            message = printable(f"{where}{error.strerror or error}")
            raise click.ClickException(message) from None


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
