# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels as they come out of its archive: image, modules and headers, and modules built with them.

Nothing is installed: packages are unpacked in $XDG_CACHE_HOME/klpfs/debian/PACKAGE, by apt and dpkg.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "klpfs/debian"
FLAVOUR = "amd64"
KERNELS = "amd64, cloud-amd64, rt-amd64, the name of a package, or the file of a kernel of Debian's"
"""What `kernel` takes."""


class DebianError(Exception):
    """It cannot be had; the message is a sentence that says why."""


def set_up(*packages: str) -> str:
    """Install ``packages`` where they are missing, and klpfs in its virtual environment.

    Returns the interpreter that has klpfs. Raises `DebianError`.
    """
    script = 'source "$0" . && { ! command -v apt-get >/dev/null || apt_install "$@"; } && echo "$python"'
    return _output("bash", "-c", script, str(SCRIPTS / "setup.sh"), *packages)


def linux_source() -> Path:
    """The livepatch parts of the kernel's sources. Raises `DebianError`."""
    return Path(_output(str(SCRIPTS / "get-linux-source")))


@dataclass(frozen=True)
class Kernel:
    """A kernel of Debian's, by its file."""

    vmlinuz: Path

    @property
    def release(self) -> str:
        """What ``uname -r`` says in it."""
        return self.vmlinuz.name.removeprefix("vmlinuz-")

    def headers(self) -> Path:
        """The directory for ``make -C``, with what it refers to unpacked beside it. Raises `DebianError`."""
        package = f"linux-headers-{self.release}"
        needed = [name for name in depends(package) if re.match("linux-(headers|kbuild)-", name)]
        root = unpacked(package, *needed)
        directory = root / f"usr/src/{package}"
        # It includes that of the common headers by the name that this has on an installed system.
        makefile = directory / "Makefile"
        text = makefile.read_text()
        if f"include {root}" not in text:
            makefile.write_text(re.sub(r"^include .*?(?=/usr/src/)", f"include {root}", text))
        return directory


def kernel(name: str = FLAVOUR) -> Kernel:
    """The kernel that ``name``, one of `KERNELS`, stands for; it is got where it is missing.

    Raises `DebianError`.
    """
    if "/" in name:
        return Kernel(Path(name).resolve())
    return Kernel(Path(_output(str(SCRIPTS / "get-debian-kernel"), name)))


def depends(package: str) -> list[str]:
    """The packages that ``package`` depends on. Raises `DebianError` if apt does not know it."""
    lines = _output("apt-cache", "depends", package).splitlines()
    return [line.split()[1] for line in lines if line.strip().startswith("Depends: ")]


def unpacked(package: str, *others: str) -> Path:
    """The directory with the files of ``package``, and of ``others``, which must lie in one tree with it.

    Raises `DebianError`.
    """
    target = CACHE / package
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{package}.") as work:
        archives = Path(work, "archives")
        archives.mkdir()
        print(f"# getting {' '.join((package, *others))}", file=sys.stderr)
        _output("apt-get", "download", "-qq", package, *others, cwd=archives)
        root = Path(work, "root")
        for archive in sorted(archives.iterdir()):
            _output("dpkg-deb", "-x", str(archive), str(root))
        put(root, target)
    return target


def put(source: Path, target: Path) -> None:
    """Move a directory into the cache, unless another process was faster."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


# Modules


def upstream_modules(kernel: Kernel) -> Path:
    """The directory with the 17 modules of samples/livepatch and lib/livepatch, built for ``kernel`` by
    the kernel's own build system. Raises `DebianError`."""
    target = CACHE / f"livepatch-modules-{kernel.release}"
    if target.is_dir():
        return target
    sources = linux_source()
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

    Returns the modules, which are in ``output``. Raises `DebianError`, with what the compiler said.
    """
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
    _output(*command)


def _output(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise DebianError(f"there is no {command[0]}: this takes a Debian system") from None
    if done.returncode != 0:
        raise DebianError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr).rstrip()}")
    return done.stdout.strip()
