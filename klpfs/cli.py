# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``klpfs``."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from klpfs import control, example
from klpfs.modules import abi as abis
from klpfs.mounting import daemon, mounts

if TYPE_CHECKING:
    from klpfs.machine.image import Image

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LEAST_MEMORY, _MOST_MEMORY = 32 << 20, 16 << 30
_INSMOD_ERRORS = {
    errno.ENOEXEC: "Invalid module format",
    errno.ENOENT: "Unknown symbol in module",
    errno.ESRCH: "Module has wrong symbol version",
    errno.EINVAL: "Invalid parameters",
}
"""What insmod(8) says of an errno (``mod_strerror`` of kmod)."""


def _size(_ctx: click.Context, _param: click.Parameter, text: str) -> int:
    """Bytes, with K, M or G behind the number."""
    found = re.fullmatch(r"([0-9]+)([kmg]?)(i?b)?", text.lower())
    if not found:
        raise click.ClickException(f"--memory: {text!r} is not a size; 256M is one")
    size = int(found[1]) * _SIZES[found[2]]
    if not _LEAST_MEMORY <= size <= _MOST_MEMORY:
        raise click.ClickException(
            f"--memory: {text} is too much or too little; 32M to 16G will do"
        )
    return size & -(2 << 20)


@contextmanager
def _failing(*kinds: type[Exception]) -> Iterator[None]:
    """An expected error is one sentence on standard error, and exit status 1."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from None


def _machine(ctx: click.Context) -> Path:
    with _failing(control.NoMachine):
        return control.find_machine(ctx.obj)


def _takes_machine(function: click.decorators.FC) -> click.decorators.FC:
    def keep(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value:
            ctx.obj = value

    return click.option(
        "-m", "--mount", metavar="MOUNTPOINT", expose_value=False, callback=keep,
        help="The machine meant; else $KLPFS_MOUNT, else the only one.",
    )(function)  # fmt: skip


def _takes_abi(function: click.decorators.FC) -> click.decorators.FC:
    """``--abi`` and ``--no-livepatch`` as one parameter ``abi``; None if neither was given."""

    def none(ctx: click.Context, _param: click.Parameter, off: bool) -> None:
        if off:
            ctx.meta["abi"] = abis.NONE

    def either(ctx: click.Context, _param: click.Parameter, abi: str | None) -> str | None:
        off: str | None = ctx.meta.get("abi")
        if off and abi:
            raise click.UsageError("--abi or --no-livepatch, not both")
        return off or abi

    with_abi = click.option(
        "--abi", type=click.Choice(abis.NAMES), callback=either,
        help="The API of live patching that the kernel has, by the kernel that had it.",
    )  # fmt: skip
    without = click.option(
        "--no-livepatch", is_flag=True, is_eager=True, expose_value=False, callback=none,
        help="A kernel without live patching.",
    )  # fmt: skip
    return with_abi(without(function))


class _Commands(click.Group):
    """What the system refuses is one sentence too: of a machine that has gone, for example."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read the output has gone
                raise
            where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="klpfs")
@_takes_machine
def main() -> None:
    """Mount a live-patchable x86-64 Linux kernel as a directory."""


@main.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option(
    "--kernel", default="embedded", show_default=True, metavar="embedded|VMLINUZ",
    help="The kernel: klpfs's own, or the file of a distribution's.",
)  # fmt: skip
@_takes_abi
@click.option("--append", metavar="CMDLINE", help="The kernel command line, for /proc/cmdline.")
@click.option(
    "--memory", callback=_size, default="256M", show_default=True, help="RAM of the machine."
)
@click.option(
    "--virtual-time", is_flag=True, help="Time stands still until machine/clock moves it."
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Of the order of tasks in virtual time."
)
@click.option("--foreground", is_flag=True, help="Serve in this process, until it is unmounted.")
@click.option("--allow-other", is_flag=True, help="Let other users in; file modes decide.")
@click.option(
    "--log-file", type=click.Path(path_type=Path), help="Where the daemon reports what went wrong."
)
def mount(
    mountpoint: Path,
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
    """Mount a machine on MOUNTPOINT; returns once it answers."""
    from klpfs.machine.image import ImageError
    from klpfs.mounting.kernel_tree import kernel_tree

    if seed is not None and not virtual_time:
        raise click.UsageError("real time cannot be repeated: --seed goes with --virtual-time")
    with _failing(mounts.MountError, ImageError):
        daemon.check(mountpoint)
        daemon.serve(
            kernel_tree(
                _image(kernel, abi),
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


def _image(kernel: str, abi: str | None) -> Image:
    """The kernel that ``--kernel`` and ``--abi`` name. Raises `klpfs.machine.image.ImageError`."""
    from klpfs.machine.image import distribution, embedded

    if kernel != "embedded":
        if abi:
            raise click.UsageError(f"{kernel} has an API of its own: no --abi, no --no-livepatch")
        return distribution.load(Path(kernel), progress=_say_progress())
    try:
        return embedded.load(progress=_say_progress(), abi=abi or abis.LATEST)
    except OSError as error:
        raise click.ClickException(
            f"the kernel, once compiled, cannot be kept: {error.filename}: {error.strerror}; "
            "set $XDG_CACHE_HOME to a directory that you can write to"
        ) from None


def _say_progress() -> Callable[[str], None] | None:
    """Somebody who watches sees what is compiled; nobody else does."""
    if not sys.stderr.isatty():
        return None
    return lambda line: click.echo(line, err=True)


@main.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Detach at once, also while it is in use.")
def umount(mountpoint: Path, lazy: bool) -> None:
    """Unmount; returns when the mount and its daemon are gone."""
    try:
        with _failing(mounts.MountError):
            mounts.unmount(mountpoint, lazy=lazy)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise click.ClickException(
            f"{mountpoint}: target is busy; see fuser -vm {mountpoint}, or use --lazy"
        ) from None


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("parameters", nargs=-1)
@click.option(
    "-f", "--force", is_flag=True, help="Load it even if it was built for another kernel."
)
@_takes_machine
@click.pass_context
def insmod(ctx: click.Context, file: Path, parameters: tuple[str, ...], force: bool) -> None:
    """Load the module FILE, with PARAMETERS like number=3."""
    machine = _machine(ctx)
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


@main.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Unload it even if it has no exit or is in use.")
@_takes_machine
@click.pass_context
def rmmod(ctx: click.Context, names: tuple[str, ...], force: bool) -> None:
    """Unload the modules NAMES."""
    machine = _machine(ctx)
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
            click.echo(f"Error: {why}", err=True)
    if failed:
        sys.exit(1)


@main.command()
@_takes_machine
@click.pass_context
def lsmod(ctx: click.Context) -> None:
    """List the modules."""
    modules = (_machine(ctx) / "proc/modules").read_text()
    click.echo("Module                  Size  Used by")
    for line in modules.splitlines():
        name, size, count, users = line.split()[:4]
        names = ",".join(u for u in users.split(",") if u and u != "-" and u[0] != "[")
        click.echo(f"{name:<19} {size:>8}  {count}{' ' + names if names else ''}")


@main.command()
@click.option("-w", "--follow", is_flag=True, help="Go on, with each line as it comes.")
@click.option("-C", "--clear", is_flag=True, help="Begin anew from here; prints nothing.")
@_takes_machine
@click.pass_context
def dmesg(ctx: click.Context, follow: bool, clear: bool) -> None:
    """Print the kernel log."""
    machine = _machine(ctx)
    for number in (signal.SIGINT, signal.SIGPIPE):  # the end of it, as of any filter
        signal.signal(number, signal.SIG_DFL)
    if clear:
        control.clear_log(machine)
        return
    for line in control.follow(machine) if follow else [control.dmesg(machine)]:
        click.echo(line.encode("utf-8", "surrogateescape"), nl=False)


@main.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the .ko files go.")
@click.option("-g", "debug", is_flag=True, help="With debug information.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option(
    "--abi", type=click.Choice(abis.NAMES), default=abis.LATEST, show_default=True,
    help="For kernels mounted with this --abi.",
)  # fmt: skip
def build(
    sources: tuple[Path, ...], output: Path | None, debug: bool, quiet: bool, abi: str
) -> None:
    """Build modules from C SOURCES, against the headers of the embedded kernel."""
    from klpfs.modules import kbuild

    say = (lambda _line: None) if quiet else (lambda line: click.echo(f"  {line}"))
    for source in sources:
        if not source.is_file():
            raise click.ClickException(f"{source}: no such file")
    try:
        kbuild.build(sources, output, debug=debug, abi=abi, on_step=say)
    except kbuild.CompileError as error:
        click.echo(str(error).rstrip("\n"), err=True)
        sys.exit(1)
    except (kbuild.ToolchainError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.argument("patch", type=_FILE)
@click.option(
    "--kernel", default="embedded", show_default=True, metavar="embedded|VMLINUZ",
    help="The kernel that it is for.",
)  # fmt: skip
@_takes_abi
@click.option(
    "--module", "modules", multiple=True, type=_FILE, help="Loaded first: it is for that."
)
@click.option(
    "--call", "calls", multiple=True, metavar="FUNCTION(ARGUMENT, ...)",
    help="Run it before and after. Arguments: numbers, strings in double quotes, seq for a seq_file.",
)  # fmt: skip
@click.option(
    "--wait", default=60.0, show_default=True, metavar="SECONDS",
    help="So long a transition may take, in time of the machine.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def check(
    patch: Path,
    kernel: str,
    abi: str | None,
    modules: tuple[Path, ...],
    calls: tuple[str, ...],
    wait: float,
    as_json: bool,
) -> None:
    """Will the live patch PATCH (a .ko file) load, apply and let go on that kernel?

    It is tried on a machine of its own. Exit status: 0 if it will, 1 if not, 2 if that could not be told.
    """
    from klpfs.checking import check as checking
    from klpfs.checking.report import Verdict, as_table
    from klpfs.machine.image import ImageError

    with _failing(ImageError, ValueError):
        report = checking.check(
            _image(kernel, abi),
            patch.read_bytes(),
            modules=[module.read_bytes() for module in modules],
            calls=calls,
            wait=wait,
        )
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        as_table(report)
    sys.exit({Verdict.GOOD: 0, Verdict.BAD: 1}.get(report.verdict, 2))


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--kernel", metavar="embedded|VMLINUZ", help="Of a machine of its own, even if one is there."
)
@_takes_abi
@click.option(
    "--modules", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIRECTORY", help="modprobe finds the modules in it.",
)  # fmt: skip
@_takes_machine
@click.pass_context
def run(
    ctx: click.Context,
    command: tuple[str, ...],
    kernel: str | None,
    abi: str | None,
    modules: tuple[Path, ...],
) -> None:
    """Run COMMAND so that the kernel it sees is the machine's: /proc, /sys, /dev/kmsg, /lib/modules,
    uname, and the system calls behind insmod, rmmod and dmesg.

    Where no machine is mounted, it gets one of its own, which ends with it.
    """
    from klpfs.machine.image import ImageError
    from klpfs.mounting.kernel_tree import kernel_tree
    from klpfs.running import run as running

    def mount_own(mountpoint: Path) -> None:
        # Root may become others in there, and they need /proc too.
        others = os.geteuid() == 0
        image = kernel or "embedded"
        machine = kernel_tree(_image(image, abi), command_line=f"BOOT_IMAGE={image}")
        daemon.serve(machine, mountpoint, allow_other=others)

    own = kernel or abi
    if own and ctx.obj:
        raise click.UsageError(
            "a machine that is mounted has its kernel: -m, or --kernel and --abi, not both"
        )
    with _failing(control.NoMachine, mounts.MountError, ImageError, running.RunError):
        machine = None if own else running.find_machine(ctx.obj)
        running.run(command, machine, mount_own, modules)


main.add_command(example.command)
