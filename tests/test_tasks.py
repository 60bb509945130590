# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches under running kernel threads, which call, sleep and stall transitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

COUNTERS = ("old_calls", "new_calls", "other_calls")
CALLS, FLIPS = 10_000_000, 100


def counters(machine: Machine) -> list[int]:
    return [int(machine.read(f"sys/module/caller/parameters/{name}")) for name in COUNTERS]


def test_every_call_runs_one_version_while_the_patch_goes_on_and_off(
    klpfs_mount: Callable[..., Machine], ko: Callable[..., Path]
) -> None:
    """Ten million calls during a hundred enables and disables, in real time."""
    machine = klpfs_mount()
    machine.insmod(ko("caller"), f"calls={CALLS}")
    patch = "sys/kernel/livepatch/caller_patch"
    for _ in range(FLIPS):
        machine.insmod(ko("caller-patch"))
        machine.wait_until(lambda: machine.read(f"{patch}/transition") == "0\n")
        machine.write(f"{patch}/enabled", "0")
        machine.wait_until_gone(patch)
        machine.rmmod("caller_patch")
    machine.wait_until(lambda: machine.read("sys/module/caller/parameters/done") == "Y\n")
    old, new, other = counters(machine)
    assert other == 0
    assert old + new == CALLS
    assert old > 0 and new > 0
    machine.rmmod("caller")


@pytest.fixture
def stalled(klpfs_machine: Machine, ko: Callable[..., Path]) -> Machine:
    """Return a machine where a kthread sleeps in a function that was just patched."""
    machine = klpfs_machine
    machine.write("sys/kernel/debug/dynamic_debug/control", "func klp_try_switch_task +p")
    machine.insmod(ko("sleeper"))
    machine.advance(0.05)
    machine.insmod(ko("sleeper-patch"))
    return machine


PATCH = "sys/kernel/livepatch/sleeper_patch"


def test_a_task_that_sleeps_in_the_function_holds_the_transition(stalled: Machine) -> None:
    machine = stalled
    pid = machine.pid_of("sleeper")
    for _ in range(20):
        assert machine.read(f"{PATCH}/transition") == "1\n"
        assert machine.read(f"proc/{pid}/patch_state") == "0\n"
        machine.advance(10)
    stack = machine.read(f"proc/{pid}/stack")
    assert "msleep+0x" in stack and "sleeper_nap+0x" in stack
    log = machine.dmesg()
    assert (
        f"livepatch: klp_try_switch_task: sleeper:{pid} is sleeping on function sleeper_nap" in log
    )
    assert "livepatch: signaling remaining tasks" in log

    machine.write("sys/module/sleeper/parameters/wake", "1")
    machine.advance(2)
    assert machine.read(f"{PATCH}/transition") == "0\n"
    assert machine.read(f"proc/{pid}/patch_state") == "-1\n"
    assert machine.dmesg()[-1] == "livepatch: 'sleeper_patch': patching complete"


def test_a_stalled_transition_is_reversed_by_writing_the_other_value(stalled: Machine) -> None:
    stalled.write(f"{PATCH}/enabled", "0")
    stalled.advance(2)
    stalled.wait_until_gone(PATCH)
    assert stalled.dmesg()[-1] == "livepatch: 'sleeper_patch': unpatching complete"
    stalled.rmmod("sleeper_patch")


def test_force_ends_the_wait(stalled: Machine) -> None:
    stalled.write(f"{PATCH}/force", "1")
    stalled.advance(2)
    assert stalled.read(f"{PATCH}/transition") == "0\n"
    assert "livepatch: forcing remaining tasks to the patched state" in stalled.dmesg()


def test_a_patch_that_was_forced_off_can_never_be_unloaded(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    machine = klpfs_machine
    machine.insmod(ko("sleeper"), "wake=1")
    machine.insmod(ko("sleeper-patch"), "asleep=1")
    machine.advance(2)  # now the kthread is in the new function
    machine.write(f"{PATCH}/enabled", "0")
    machine.advance(60)
    assert machine.read(f"{PATCH}/transition") == "1\n"
    machine.write(f"{PATCH}/force", "1")
    machine.advance(2)
    machine.wait_until_gone(PATCH)
    with pytest.raises(BlockingIOError):
        machine.rmmod("sleeper_patch")
    machine.write("sys/module/sleeper_patch/parameters/asleep", "0")
    machine.advance(60)
    with pytest.raises(BlockingIOError):
        machine.rmmod("sleeper_patch")


@pytest.mark.timeout(30)
def test_virtual_time_passes_under_a_task_that_never_waits(
    klpfs_machine: Machine, ko: Callable[..., Path]
) -> None:
    machine = klpfs_machine
    machine.insmod(ko("caller"), "calls=1000000000000")
    machine.advance(5)
    first = counters(machine)
    machine.advance(5)
    assert float(machine.read("machine/clock").split()[0]) == 10
    assert counters(machine)[0] > first[0]
