# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels as they are in its archive: image, modules and headers, and modules built with
them.

No kernel is installed: apt and dpkg unpack packages in $XDG_CACHE_HOME/klpfs/debian/PACKAGE.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klpfs_scripts.command import ScriptError, say
from klpfs_scripts.environment import SCRIPTS, set_up

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "klpfs/debian"
FLAVOUR = "amd64"
KERNELS = "amd64, cloud-amd64, rt-amd64, the name of a package, or the file of a Debian kernel"
"""The names that `kernel` takes."""


class DebianError(ScriptError):
    """A package, or a module, cannot be had. The message is a sentence that says why."""


def add_kernel_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--kernel`` to the options of a script."""
    parser.add_argument(
        "--kernel", default=FLAVOUR, metavar="KERNEL", help=f"{KERNELS} (default: {FLAVOUR})"
    )


def linux_source() -> Path:
    """Return the directory with the livepatch parts of the kernel's sources. Raises `DebianError`."""
    return Path(_printed(str(SCRIPTS / "get-linux-source")))


@dataclass(frozen=True)
class Kernel:
    """A Debian kernel, by its file."""

    vmlinuz: Path

    @property
    def release(self) -> str:
        """The release that ``uname -r`` prints on this kernel."""
        return self.vmlinuz.name.removeprefix("vmlinuz-")

    def headers(self) -> Path:
        """Return the directory for ``make -C``, with the packages that it refers to beside it.

        Raises `DebianError`.
        """
        package = f"linux-headers-{self.release}"
        needed = [name for name in depends(package) if re.match("linux-(headers|kbuild)-", name)]
        root = unpacked(package, *needed)
        directory = root / f"usr/src/{package}"
        # It includes the Makefile of the common headers by the path that this has on an installed system.
        makefile = directory / "Makefile"
        text = makefile.read_text()
        if f"include {root}" not in text:
            makefile.write_text(re.sub(r"^include .*?(?=/usr/src/)", f"include {root}", text))
        return directory


def kernel(name: str = FLAVOUR) -> Kernel:
    """Return the kernel that ``name``, one of `KERNELS`, stands for; download it if it is missing.

    Raises `DebianError`.
    """
    if "/" in name:
        if not Path(name).is_file():
            raise DebianError(f"there is no kernel {name}")
        return Kernel(Path(name).resolve())
    return Kernel(Path(_printed(str(SCRIPTS / "get-debian-kernel"), name)))


def depends(package: str) -> list[str]:
    """Return the packages that ``package`` depends on. Raises `DebianError` if apt does not know
    it."""
    lines = _printed("apt-cache", "depends", package).splitlines()
    return [line.split()[1] for line in lines if line.strip().startswith("Depends: ")]


def unpacked(package: str, *others: str) -> Path:
    """Return the directory with the files of ``package`` and of ``others``, all in one tree.

    Raises `DebianError`.
    """
    target = CACHE / package
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{package}.") as work:
        archives = Path(work, "archives")
        archives.mkdir()
        say(f"getting {' '.join((package, *others))}")
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]
        _quietly(*command, package, *others, cwd=archives)
        root = Path(work, "root")
        for archive in sorted(archives.iterdir()):
            _quietly("dpkg-deb", "-x", str(archive), str(root))
        put(root, target)
    return target


def put(source: Path, target: Path) -> None:
    """Move a directory into the cache, unless another process did so in the meantime."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


# Modules


def upstream_modules(kernel: Kernel) -> Path:
    """Return the directory with the 17 modules of samples/livepatch and lib/livepatch for
    ``kernel``.

    They are built by the kernel's own build system, if they are missing. Raises `DebianError`.
    """
    target = CACHE / f"livepatch-modules-{kernel.release}"
    if target.is_dir():
        return target
    sources = linux_source()
    say(f"building the modules of samples/livepatch and lib/livepatch for {kernel.release}")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{target.name}.") as work:
        built = Path(work, "built")
        built.mkdir()
        for part, config in (("samples", "SAMPLE"), ("lib", "TEST")):
            directory = Path(work, part)
            shutil.copytree(sources / part / "livepatch", directory)
            _make(kernel, directory, f"CONFIG_{config}_LIVEPATCH=m")
            for module in directory.glob("*.ko"):
                module.rename(built / module.name)
        put(built, target)
    return target


def build(kernel: Kernel, sources: Sequence[Path], output: Path) -> list[Path]:
    """Build a module from each of ``sources`` for ``kernel``, by the kernel's own build system.

    Returns the paths of the modules, in ``output``. Raises `DebianError` with the compiler's
    messages.
    """
    say(f"building {', '.join(source.stem for source in sources)} for {kernel.release}")
    with tempfile.TemporaryDirectory() as work:
        for source in sources:
            shutil.copy(source, work)
        objects = " ".join(f"{source.stem}.o" for source in sources)
        Path(work, "Kbuild").write_text(f"obj-m := {objects}\n")
        _make(kernel, Path(work))
        output.mkdir(parents=True, exist_ok=True)
        names = [f"{source.stem}.ko" for source in sources]
        return [Path(shutil.move(Path(work, name), output / name)) for name in names]


def _make(kernel: Kernel, directory: Path, *settings: str) -> None:
    set_up("gcc-12", "make", "libelf1", "libssl3")
    command = ["make", "-s", "-C", str(kernel.headers()), f"M={directory}", *settings, "modules"]
    _quietly(*command)


def _printed(*command: str) -> str:
    """Return what a command prints, without its last newline; its errors are the user's to see."""
    return _run(command, None, None).stdout.strip()


def _quietly(*command: str, cwd: Path | None = None) -> None:
    """Run a command, whose output is of interest only if it fails."""
    _run(command, cwd, subprocess.STDOUT)


def _run(
    command: Sequence[str], cwd: Path | None, stderr: int | None
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    except FileNotFoundError:
        raise DebianError(f"there is no {command[0]}: this needs a Debian system") from None
    if done.returncode != 0:
        printed = f":\n{done.stdout.rstrip()}" if done.stdout else ""
        raise DebianError(f"{' '.join(command)} failed{printed}")
    return done
