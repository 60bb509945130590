# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports about WARN and Oops: their layout is that of Linux, and what they count and taint."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

Ko = Callable[..., Path]
NAME = b"faulty_000"
HEX = "[0-9a-f]{16}"
REGISTERS = [
    rf"RAX: {HEX} RBX: {HEX} RCX: {HEX}",
    rf"RDX: {HEX} RSI: {HEX} RDI: {HEX}",
    rf"RBP: {HEX} R08: {HEX} R09: {HEX}",
    rf"R10: {HEX} R11: {HEX} R12: {HEX}",
    rf"R13: {HEX} R14: {HEX} R15: {HEX}",
]
CONTROL = [
    rf"FS:  {HEX}\(0000\) GS:{HEX}\(0000\) knlGS:{HEX}",
    rf"CS:  0010 DS: 0000 ES: 0000 CR0: {HEX}",
    rf"CR2: {HEX} CR3: {HEX} CR4: {HEX}",
]


def load(machine: Machine, ko: Ko, fault: str, name: str = "faulty_001") -> list[str]:
    """Load a module that fails, and return the log of that."""
    machine.clear_log()
    data = ko("faulty_000").read_bytes().replace(NAME, name.encode())
    with contextlib.suppress(OSError):
        machine.insmod(data, f"fault={fault}")
    return machine.dmesg()


def follow(log: list[str], patterns: list[str], start: int = 0) -> int:
    """Check that lines that match the patterns follow each other. Return the index behind them."""
    for first in range(start, len(log) - len(patterns) + 1):
        if all(re.fullmatch(p, line) for p, line in zip(patterns, log[first:], strict=False)):
            return first + len(patterns)
    raise AssertionError("\n".join(patterns) + "\nnot in\n" + "\n".join(log))


def test_registers_of_an_oops(klpfs_machine: Machine, ko: Ko) -> None:
    log = load(klpfs_machine, ko, "read_null")
    registers = [r"RIP: 0010:read_null.*", "Code: .*", r"RSP: 0018:.* EFLAGS: .*", *REGISTERS]
    behind = follow(log, [*registers, *CONTROL, "Call Trace:", " <TASK>"])
    follow(log, [*registers, *CONTROL], behind)


def test_trace_ends_at_the_system_call(klpfs_machine: Machine, ko: Ko) -> None:
    log = load(klpfs_machine, ko, "read_null")
    behind = follow(log, [r" do_syscall_64\+0x.*", r" entry_SYSCALL_64_after_hwframe\+0x.*"])
    try:
        Path("/proc/self/syscall").read_text()
        registers = f"/proc/{os.getpid()}/syscall"
        os.close(os.open(registers, os.O_RDONLY))
    except OSError:
        pytest.skip("the host does not show registers")
    user = [r"RIP: 0033:0x[0-9a-f]+", r"Code: ([0-9a-f]{2} ){42}<[0-9a-f]{2}>.*"]
    user.append(rf"RSP: 002b:{HEX} EFLAGS: {'[0-9a-f]' * 8} ORIG_RAX: {HEX}")
    assert log[behind].startswith("RIP: 0033:")
    behind = follow(log, [*user, *REGISTERS, " </TASK>"], behind)
    assert not any("RAX: ffffffffffffffda" in line for line in log[behind:])


def test_second_oops_repeats_the_registers_of_the_first(klpfs_machine: Machine, ko: Ko) -> None:
    load(klpfs_machine, ko, "read_null")
    log = load(klpfs_machine, ko, "write_null", "faulty_002")
    rips = [line for line in log if line.startswith("RIP: 0010:")]
    assert [line.split(":")[2].split("+")[0] for line in rips] == ["write_null", "read_null"]


def test_first_warning_is_not_tainted_yet(klpfs_machine: Machine, ko: Ko) -> None:
    """``__warn`` taints the kernel after the report. The module itself taints it with O."""
    log = load(klpfs_machine, ko, "warn_on")
    taints = [
        found[1].split() for line in log if (found := re.search(r"Tainted: (\S+ +\S*)", line))
    ]
    assert taints == [["G", "O"]]
    assert int(klpfs_machine.read("proc/sys/kernel/tainted")) >> 9 & 1
    log = load(klpfs_machine, ko, "warn_on", "faulty_002")
    assert any("Tainted: G        W  O" in line for line in log)


def test_taint_of_warn_taint(klpfs_machine: Machine, ko: Ko) -> None:
    load(klpfs_machine, ko, "warn_taint")
    taint = int(klpfs_machine.read("proc/sys/kernel/tainted"))
    assert taint >> 10 & 1 and not taint >> 9 & 1


def test_counts(klpfs_machine: Machine, ko: Ko) -> None:
    def counts() -> tuple[str, str]:
        read = klpfs_machine.read
        return read("sys/kernel/warn_count"), read("sys/kernel/oops_count")

    assert counts() == ("0\n", "0\n")
    load(klpfs_machine, ko, "warn_on")
    load(klpfs_machine, ko, "read_null", "faulty_002")
    load(klpfs_machine, ko, "bug", "faulty_003")
    assert counts() == ("1\n", "2\n")
    assert os.stat(klpfs_machine.path("sys/kernel/warn_count")).st_mode & 0o777 == 0o444


def test_clear_warn_once(klpfs_machine: Machine, ko: Ko) -> None:
    file = klpfs_machine.path("sys/kernel/debug/clear_warn_once")

    def values() -> int:
        return int(klpfs_machine.read("sys/kernel/warn_count"))

    for number in (1, 2):
        load(klpfs_machine, ko, "warn_once_twice", f"faulty_{number:03d}")
        assert values() == number
    load(klpfs_machine, ko, "warn_kernel_once", "faulty_004")
    load(klpfs_machine, ko, "warn_kernel_once", "faulty_005")
    assert values() == 3
    file.write_text("1\n")
    log = load(klpfs_machine, ko, "warn_kernel_once", "faulty_006")
    assert values() == 4
    assert any(re.search(r" at lib/vsprintf\.c:\d+ ", line) for line in log)
    with pytest.raises(OSError, match="Invalid"):
        file.write_text("x\n")
    with pytest.raises(PermissionError):
        file.read_text()


def test_warnings_of_the_embedded_kernel_name_the_files_of_linux() -> None:
    """All but those of code that has no counterpart use `WARN_ON_AT` and the like."""
    own = {"iov_iter.c"}
    guest = Path(__file__).parent.parent / "machine/guest"
    found = {
        path.name
        for path in guest.rglob("*.c")
        if re.search(r"\b(WARN|BUG)(_ON)?(_ONCE)?\(", path.read_text().replace("a WARN()", ""))
    }
    assert found == own
