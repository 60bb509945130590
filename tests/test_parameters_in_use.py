# SPDX-License-Identifier: GPL-2.0-or-later
"""A module is unloaded while a task reads one of its parameters."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from klpfs.pytest_plugin import Machine


def test_rmmod_waits_for_a_reader(
    klpfs_mount: Callable[..., Machine], ko: Callable[..., Path]
) -> None:
    machine = klpfs_mount()
    machine.insmod(ko("slow_parameter"))
    parameter = "sys/module/slow_parameter/parameters/number"
    texts: list[bytes] = []

    def read() -> None:
        descriptor = os.open(machine.path(parameter), os.O_RDONLY)
        texts.append(os.read(descriptor, 4096))  # another read would return ENOENT
        os.close(descriptor)

    reader = threading.Thread(target=read)
    reader.start()
    while not texts:
        tasks = [path.name for path in machine.path("proc").iterdir() if path.name.isdecimal()]
        waits = [machine.path(f"proc/{task}/wchan") for task in tasks]
        if any(path.exists() and path.read_text() == "msleep" for path in waits):
            break
        time.sleep(0.01)
    machine.rmmod("slow_parameter")
    reader.join(30)
    assert texts == [b"7\n"]
    assert not machine.path(parameter).exists()
    assert not [line for line in machine.dmesg() if "BUG" in line or "Oops" in line]
