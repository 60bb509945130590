# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a daemon that hangs: by SIGTERM, and by klpfs umount."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from processes import daemon_of, eventually, gone

from klpfs.fs.attributes import ProcFile
from klpfs.fs.nodes import Caller, Root
from klpfs.mounting import daemon, mounts

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

SECONDS = 5
"""The time in which a daemon must end."""


def loop() -> None:
    """Loop in Python."""
    while True:
        pass


def block() -> None:
    """Block in a function of C, as an emulator that never returns would."""
    ctypes.CDLL(None).sleep(1000)


HANGS: dict[str, Callable[[], None]] = {"loop": loop, "block": block}


@contextlib.asynccontextmanager
async def make_tree() -> AsyncIterator[Root]:
    root = Root()

    def file(hang: Callable[[], None]) -> ProcFile:
        async def show(_caller: Caller) -> bytes:
            hang()
            return b""

        return ProcFile(show)

    for name, hang in HANGS.items():
        root.add(name, file(hang))
    yield root


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    daemon.serve(make_tree, tmp_path)
    process = daemon_of(tmp_path)
    try:
        yield tmp_path
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        assert eventually(lambda: gone(process))
        if mounts.mount_at(str(tmp_path)):
            mounts.unmount(tmp_path, lazy=True)


@contextlib.contextmanager
def hanging(mountpoint: Path, how: str) -> Iterator[subprocess.Popen[bytes]]:
    """Make the daemon hang: by a read of one of its files, or by SIGSTOP."""
    process = daemon_of(mountpoint)
    name = how if how in HANGS else "loop"
    if how == "stop":
        os.kill(process, signal.SIGSTOP)
    with subprocess.Popen(["cat", mountpoint / name], stderr=subprocess.DEVNULL) as reader:
        time.sleep(0.5)
        try:
            yield reader
        except BaseException:
            os.kill(process, signal.SIGKILL)  # or else the reader waits for ever
            raise
        assert eventually(lambda: reader.poll() is not None)
        assert reader.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", HANGS)
def test_a_signal_ends_a_daemon_that_hangs(mounted: Path, how: str, number: int) -> None:
    process = daemon_of(mounted)
    with hanging(mounted, how):
        os.kill(process, number)
        assert eventually(lambda: gone(process), SECONDS)
        assert mounts.mount_at(str(mounted)) is None


@pytest.mark.parametrize("options", [[], ["--lazy"]])
@pytest.mark.parametrize("how", [*HANGS, "stop"])
def test_umount_ends_a_daemon_that_hangs(mounted: Path, how: str, options: list[str]) -> None:
    process = daemon_of(mounted)
    with hanging(mounted, how):
        start = time.monotonic()
        command = [sys.executable, "-m", "klpfs", "umount", *options, str(mounted)]
        subprocess.run(command, check=True, timeout=30)
        assert time.monotonic() - start < SECONDS + 1  # Python's own start takes some time
        assert gone(process)
        assert mounts.mount_at(str(mounted)) is None


def test_a_signal_ends_a_daemon_that_waits(mounted: Path) -> None:
    process = daemon_of(mounted)
    start = time.monotonic()
    os.kill(process, signal.SIGTERM)
    assert eventually(lambda: gone(process), SECONDS)
    assert time.monotonic() - start < 2
    assert mounts.mount_at(str(mounted)) is None


def test_a_busy_mount_is_not_unmounted(mounted: Path) -> None:
    with open(mounted / "loop"):
        with pytest.raises(OSError, match="busy"):
            mounts.unmount(mounted)
        assert not gone(daemon_of(mounted))
