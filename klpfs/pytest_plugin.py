# SPDX-License-Identifier: GPL-2.0-or-later
"""A mounted machine as a pytest fixture, for whoever tests live patches or the tools around them.

::

    def test_my_patch(klpfs_machine, tmp_path):
        machine = klpfs_machine
        machine.insmod(machine.build("my-patch.c"))
        assert machine.read("proc/cmdline") == "this has been live patched\\n"

``klpfs_machine`` runs in virtual time: nothing times out while a test looks, and `Machine.advance` lets
time pass. ``klpfs_mount`` makes machines with other options. All are gone when the test ends.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from klpfs import control
from klpfs.modules import abi as abis

_MOUNT_SECONDS = 60
_WAIT_SECONDS = 30
_POLL_SECONDS = 0.005


class Machine:
    """A machine mounted on ``mountpoint``."""

    def __init__(self, mountpoint: Path, *options: str) -> None:
        self.mountpoint = mountpoint
        command = [sys.executable, "-m", "klpfs", "mount", *options, str(mountpoint)]
        subprocess.run(command, check=True, timeout=_MOUNT_SECONDS)

    def umount(self) -> None:
        """Unmount; also when it was unmounted, or its daemon is dead."""
        command = [sys.executable, "-m", "klpfs", "umount", "--lazy", str(self.mountpoint)]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, check=False, capture_output=True, timeout=_MOUNT_SECONDS)

    def path(self, name: str = "") -> Path:
        """A file of the mount, by its path from the mount point."""
        return self.mountpoint / name

    def read(self, name: str) -> str:
        """What a file says."""
        return self.path(name).read_text(errors="surrogateescape")

    def write(self, name: str, text: str) -> None:
        """Write to a file, as ``echo -n`` does. Raises OSError."""
        with open(self.path(name), "wb", buffering=0) as file:
            file.write(text.encode("utf-8", "surrogateescape"))

    def build(
        self, *sources: str | Path, output: Path | None = None, abi: str = abis.LATEST
    ) -> Path:
        """Build modules; returns the first one's file. Raises CalledProcessError."""
        command = [sys.executable, "-m", "klpfs", "build", "-q", "--abi", abi, *map(str, sources)]
        if output is not None:
            command += ["-o", str(output)]
        subprocess.run(command, check=True)
        first = Path(sources[0])
        return (output or first.parent) / f"{first.stem}.ko"

    def insmod(self, module: Path | bytes, *parameters: str, force: bool = False) -> None:
        """Load a module. Raises OSError with the kernel's errno."""
        data = module if isinstance(module, bytes) else module.read_bytes()
        control.insmod(self.mountpoint, data, parameters, force=force)

    def rmmod(self, name: str, *, force: bool = False) -> None:
        """Unload a module. Raises OSError with the kernel's errno."""
        control.rmmod(self.mountpoint, name, force=force)

    def dmesg(self) -> list[str]:
        """The lines of the log, without their times, since the last `clear_log`."""
        lines = control.dmesg(self.mountpoint).split("\n")[:-1]
        return [line.partition("] ")[2] for line in lines]

    def clear_log(self) -> None:
        """`dmesg` begins here."""
        control.clear_log(self.mountpoint)

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; what falls due has happened when this returns."""
        self.write("machine/clock", f"+{seconds}\n")

    def wait_until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Wait, in real time, until ``condition()`` holds. Raises TimeoutError."""
        end = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{what} did not come true; the log:\n" + "\n".join(self.dmesg())
                )
            time.sleep(_POLL_SECONDS)

    def wait_until_gone(self, name: str) -> None:
        """Wait until a file of the mount is not there any more. Raises TimeoutError."""
        self.wait_until(lambda: not self.path(name).exists(), f"the end of {name}")

    def pid_of(self, comm: str) -> int:
        """The pid of the task called ``comm``. Raises LookupError."""
        for directory in self.path("proc").iterdir():
            if directory.name.isdecimal():
                with suppress(FileNotFoundError, ProcessLookupError, OSError):
                    if (directory / "comm").read_text() == f"{comm}\n":
                        return int(directory.name)
        raise LookupError(f"no task is called {comm}")


@pytest.fixture
def klpfs_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Machine]]:
    """Mounts a machine, with options of ``klpfs mount``; as many as are called for."""
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
    """A machine of its own for the test, in virtual time."""
    return klpfs_mount("--virtual-time")
