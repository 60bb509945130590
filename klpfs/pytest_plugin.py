# SPDX-License-Identifier: GPL-2.0-or-later
"""Pytest fixtures that mount a machine, for tests of live patches and of the tools around them.

::

    def test_my_patch(klpfs_machine, tmp_path):
        machine = klpfs_machine
        machine.insmod(machine.build("my-patch.c"))
        assert machine.read("proc/cmdline") == "this has been live patched\\n"

``klpfs_machine`` is a machine in virtual time: no timeout expires while a test looks at it, and
`Machine.advance` moves its clock. ``klpfs_mount`` mounts machines with other options. All of them are
unmounted when the test ends.

Pytest imports this module in every project where klpfs is installed. It imports nothing but pytest
and the standard library until a fixture is used.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KLPFS = (sys.executable, "-P", "-m", "klpfs")
"""The command klpfs. With -P Python ignores the current directory, where a project may have a
``trio.py`` of its own. PYTHONPATH and the user's site-packages count: klpfs may be installed there."""
_MOUNT_SECONDS = 60
_WAIT_SECONDS = 30
_POLL_SECONDS = 0.005


class Machine:
    """A machine mounted on ``mountpoint``, with ``options`` of ``klpfs mount``."""

    def __init__(self, mountpoint: Path, *options: str) -> None:
        """Mount it. Raises CalledProcessError."""
        self.mountpoint = mountpoint
        command = [*_KLPFS, "mount", *options, str(mountpoint)]
        subprocess.run(command, check=True, timeout=_MOUNT_SECONDS)

    def umount(self) -> None:
        """Unmount it. It is not an error if it is unmounted already or its daemon is dead."""
        command = [*_KLPFS, "umount", "--lazy", str(self.mountpoint)]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, check=False, capture_output=True, timeout=_MOUNT_SECONDS)

    def path(self, name: str = "") -> Path:
        """Return the path of a file of the mount. ``name`` is relative to the mount point."""
        return self.mountpoint / name

    def read(self, name: str) -> str:
        """Return the contents of a file. Raises OSError."""
        return self.path(name).read_text(errors="surrogateescape")

    def write(self, name: str, text: str) -> None:
        """Write to a file, as ``echo -n`` does. Raises OSError."""
        with open(self.path(name), "wb", buffering=0) as file:
            file.write(text.encode("utf-8", "surrogateescape"))

    def build(
        self, *sources: str | Path, output: Path | None = None, abi: str | None = None
    ) -> Path:
        """Build a module from each of ``sources`` and return the path of the first.

        The modules go to the directory ``output``, or beside their sources. ``abi`` is the
        ``--abi`` of ``klpfs build``. Raises CalledProcessError.
        """
        command = [*_KLPFS, "build", "-q", *map(str, sources)]
        if abi is not None:
            command += ["--abi", abi]
        if output is not None:
            command += ["-o", str(output)]
        subprocess.run(command, check=True)
        first = Path(sources[0])
        return (output or first.parent) / f"{first.stem}.ko"

    def insmod(self, module: Path | bytes, *parameters: str, force: bool = False) -> None:
        """Load a module. Raises OSError with the kernel's errno."""
        from klpfs import control

        data = module if isinstance(module, bytes) else module.read_bytes()
        control.insmod(self.mountpoint, data, parameters, force=force)

    def rmmod(self, name: str, *, force: bool = False) -> None:
        """Unload a module. Raises OSError with the kernel's errno."""
        from klpfs import control

        control.rmmod(self.mountpoint, name, force=force)

    def dmesg(self) -> list[str]:
        """Return the lines of the log since the last `clear_log`, without their times."""
        from klpfs import control

        lines = control.dmesg(self.mountpoint).split("\n")[:-1]
        return [line.partition("] ")[2] for line in lines]

    def clear_log(self) -> None:
        """Make `dmesg` begin here."""
        from klpfs import control

        control.clear_log(self.mountpoint)

    def advance(self, seconds: float) -> None:
        """Move the virtual clock. All that falls due in that time has happened on return."""
        self.write("machine/clock", f"+{seconds}\n")

    def wait_until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Wait, in real time, until ``condition()`` is true. Raises TimeoutError with the log."""
        end = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > end:
                from klpfs.terminal import LINES, printable

                log = printable("\n".join(self.dmesg()), LINES)
                raise TimeoutError(f"{what} did not come true; the log:\n{log}")
            time.sleep(_POLL_SECONDS)

    def wait_until_gone(self, name: str) -> None:
        """Wait, in real time, until a file of the mount is removed. Raises TimeoutError."""
        self.wait_until(lambda: not self.path(name).exists(), f"the end of {name}")

    def pid_of(self, comm: str) -> int:
        """Return the pid of the task named ``comm``. Raises LookupError."""
        for directory in self.path("proc").iterdir():
            if directory.name.isdecimal():
                with suppress(FileNotFoundError, ProcessLookupError, OSError):
                    if (directory / "comm").read_text() == f"{comm}\n":
                        return int(directory.name)
        raise LookupError(f"no task is called {comm}")


@pytest.fixture
def klpfs_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Machine]]:
    """A function that mounts a machine, given options of ``klpfs mount``."""
    machines: list[Machine] = []

    def mount(*options: str) -> Machine:
        mountpoint = tmp_path_factory.mktemp("klpfs")
        machine = Machine(mountpoint, *options)
        machines.append(machine)
        return machine

    yield mount
    for machine in machines:
        machine.umount()


@pytest.fixture
def klpfs_machine(klpfs_mount: Callable[..., Machine]) -> Machine:
    """A machine in virtual time, for this test alone."""
    return klpfs_mount("--virtual-time")
