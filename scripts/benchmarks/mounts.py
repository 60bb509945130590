# SPDX-License-Identifier: GPL-2.0-or-later
"""A mounted machine, and mounts of the reference programs with a copy of its files."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rows import SOURCES, Bench, Missing, needs
from klpfs.pytest_plugin import Machine

ANSWER_SECONDS = 30
COPIED = ("sys", "proc")
"""The directories that the reference programs show. The others have devices in them."""


def new_directory(bench: Bench, name: str) -> Path:
    """Create a directory for this run, and return its path."""
    path = bench.work / f"{name}-{time.monotonic_ns()}"
    path.mkdir()
    return path


@contextmanager
def mounted(bench: Bench, *options: str) -> Iterator[Machine]:
    """Mount a machine of klpfs, in real time. Raises `Missing`."""
    if not os.path.exists("/dev/fuse"):
        raise Missing("there is no /dev/fuse")
    machine = Machine(new_directory(bench, "klpfs"), *options)
    try:
        yield machine
    finally:
        machine.umount()


def copy_of(bench: Bench, machine: Machine) -> Path:
    """Copy the files of a mount as they are now, and return the directory."""
    copy = new_directory(bench, "copy")
    for top in COPIED:
        source = machine.path(top)
        for directory, names, files in os.walk(source):
            target = copy / top / Path(directory).relative_to(source)
            target.mkdir(parents=True, exist_ok=True)
            for name in [*names, *files]:
                copy_file(Path(directory, name), target / name)
    return copy


def copy_file(source: Path, target: Path) -> None:
    """Copy a file with its mode, or a link."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_file():
        try:
            data = source.read_bytes()
        except OSError:  # it can only be written
            data = b""
        target.write_bytes(data)
        target.chmod(source.stat().st_mode & 0o777)


@contextmanager
def reference(bench: Bench, command: Sequence[str], directory: Path) -> Iterator[Path]:
    """Mount ``directory`` by a reference program. Raises `Missing`."""
    mountpoint = new_directory(bench, "reference")
    process = subprocess.Popen([*command, str(directory), str(mountpoint)])
    try:
        end = time.monotonic() + ANSWER_SECONDS
        while not os.path.ismount(mountpoint) or not os.listdir(mountpoint):
            if process.poll() is not None or time.monotonic() > end:
                raise Missing(f"{command[-1]} does not mount")
            time.sleep(0.01)
        yield mountpoint
    finally:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], capture_output=True)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def minimal_pyfuse3() -> list[str]:
    """Return the command of the reference program in Python."""
    return [sys.executable, str(SOURCES / "minimal_pyfuse3.py")]


def minimal_libfuse(bench: Bench) -> list[str]:
    """Compile the reference program in C, and return its command. Raises `Missing`."""
    needs("gcc")
    needs("pkg-config")
    program = bench.work / "minimal_libfuse"
    if not program.exists():
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True
        )
        if flags.returncode:
            raise Missing("there is no libfuse3-dev")
        source = str(SOURCES / "minimal_libfuse.c")
        command = ["gcc", "-O2", "-o", str(program), source, *shlex.split(flags.stdout)]
        subprocess.run(command, check=True)
    return [str(program)]
