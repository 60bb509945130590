# SPDX-License-Identifier: GPL-2.0-or-later
"""The function tracer, through the files of sys/kernel/tracing."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from klpfs.pytest_plugin import Machine

TRACING = "sys/kernel/tracing"
ENTRY = re.compile(r" *(\S+)-(\d+) +\[000\] (.{5}) +\d+\.\d{6}: (\S+)(?: \[\w+\])? <-(.+)")


def write(machine: Machine, name: str, text: str, mode: str = "w") -> None:
    with machine.path(f"{TRACING}/{name}").open(mode) as file:
        file.write(text)


def read(machine: Machine, name: str) -> str:
    return machine.read(f"{TRACING}/{name}")


def entries(machine: Machine) -> list[tuple[str, str]]:
    """Return the functions in the trace with their callers."""
    lines = [line for line in read(machine, "trace").splitlines() if not line.startswith("#")]
    found = [ENTRY.fullmatch(line) for line in lines]
    assert all(found), lines
    return [(match[4], match[5]) for match in found if match]


@pytest.fixture
def tracing(klpfs_machine: Machine) -> Machine:
    """Return a machine that traces cmdline_proc_show."""
    write(klpfs_machine, "set_ftrace_filter", "cmdline_proc_show\n")
    write(klpfs_machine, "current_tracer", "function\n")
    return klpfs_machine


def test_functions_and_their_callers(tracing: Machine) -> None:
    tracing.read("proc/cmdline")
    tracing.read("proc/version")
    assert entries(tracing) == [("cmdline_proc_show", "seq_read_iter")]
    trace = read(tracing, "trace")
    assert trace.startswith(
        "# tracer: function\n#\n# entries-in-buffer/entries-written: 1/1   #P:1\n"
    )
    comm = Path("/proc/self/comm").read_text().strip()
    assert f"{comm}-{os.getpid()} " in trace
    write(tracing, "set_ftrace_filter", "version_proc_show\n", "a")
    tracing.read("proc/version")
    assert [name for name, _ in entries(tracing)] == ["cmdline_proc_show", "version_proc_show"]


def test_nothing_is_traced_at_first(klpfs_machine: Machine) -> None:
    klpfs_machine.read("proc/cmdline")
    assert read(klpfs_machine, "current_tracer") == "nop\n"
    assert read(klpfs_machine, "set_ftrace_filter") == "#### all functions enabled ####\n"
    assert read(klpfs_machine, "set_ftrace_notrace") == "#### no functions disabled ####\n"
    assert read(klpfs_machine, "enabled_functions") == ""
    assert entries(klpfs_machine) == []


def test_a_function_that_is_patched(tracing: Machine, ko: Callable[..., Path]) -> None:
    """Tracer and patch are both called, and the patch is effective."""
    tracing.insmod(ko("livepatch-sample"))
    assert tracing.read("proc/cmdline") == "this has been live patched\n"
    assert entries(tracing) == [("cmdline_proc_show", "seq_read_iter")]
    assert read(tracing, "enabled_functions").startswith("cmdline_proc_show (2)   I  ")
    write(tracing, "current_tracer", "nop")
    assert tracing.read("proc/cmdline") == "this has been live patched\n"
    assert entries(tracing) == []


def test_all_functions(klpfs_machine: Machine) -> None:
    write(klpfs_machine, "current_tracer", "function")
    klpfs_machine.read("proc/cmdline")
    names = [name for name, _ in entries(klpfs_machine)]
    assert "cmdline_proc_show" in names
    assert "seq_read_iter" in names
    everywhere = len(read(klpfs_machine, "enabled_functions").splitlines())
    assert everywhere == len(read(klpfs_machine, "available_filter_functions").splitlines())
    write(klpfs_machine, "set_ftrace_notrace", "seq_*")
    assert len(read(klpfs_machine, "enabled_functions").splitlines()) < everywhere
    write(klpfs_machine, "trace", "\n")
    klpfs_machine.read("proc/cmdline")
    names = [name for name, _ in entries(klpfs_machine)]
    assert "cmdline_proc_show" in names
    assert "seq_read_iter" not in names
    write(klpfs_machine, "current_tracer", "nop")
    assert read(klpfs_machine, "enabled_functions") == ""


def test_tracing_on(tracing: Machine) -> None:
    write(tracing, "tracing_on", "0")
    tracing.read("proc/cmdline")
    assert (read(tracing, "tracing_on"), entries(tracing)) == ("0\n", [])
    write(tracing, "tracing_on", "2")
    tracing.read("proc/cmdline")
    assert (read(tracing, "tracing_on"), len(entries(tracing))) == ("1\n", 1)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("cmdline_proc_show version_proc_show\n", ["cmdline_proc_show", "version_proc_show"]),
        ("cmd*show", ["cmdline_proc_show"]),
        ("*dline_proc_sh*", ["cmdline_proc_show"]),
        ("cmdline_proc_show version_proc_show !cmdline_proc_show", ["version_proc_show"]),
        ("", []),
    ],
)
def test_the_filter(tracing: Machine, written: str, names: list[str]) -> None:
    write(tracing, "set_ftrace_filter", "meminfo_proc_show")
    write(tracing, "set_ftrace_filter", written)
    tracing.wait_until(lambda: "meminfo" not in read(tracing, "set_ftrace_filter"))
    shown = read(tracing, "set_ftrace_filter").splitlines()
    assert sorted(shown) == names or not names and shown == ["#### all functions enabled ####"]


def test_the_functions_of_a_module(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    klpfs_machine.insmod(ko("livepatch-sample"))
    write(klpfs_machine, "set_ftrace_filter", "*:mod:livepatch_sample")
    names = read(klpfs_machine, "set_ftrace_filter").splitlines()
    assert "livepatch_cmdline_proc_show [livepatch_sample]" in names
    assert all(name.endswith(" [livepatch_sample]") for name in names)
    write(klpfs_machine, "current_tracer", "function")
    klpfs_machine.read("proc/cmdline")
    assert [name for name, _ in entries(klpfs_machine)] == ["livepatch_cmdline_proc_show"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("current_tracer", "nonsense"), ("set_ftrace_filter", "nonsense\n"), ("tracing_on", "x"),
        ("set_ftrace_filter", "cmdline_proc_show:nonsense\n"), ("available_tracers", "function"),
    ],
)  # fmt: skip
def test_invalid_settings(tracing: Machine, name: str, text: str) -> None:
    with pytest.raises(OSError) as caught:
        write(tracing, name, text, "a")
    assert caught.value.errno == errno.EINVAL
    tracing.read("proc/cmdline")
    assert len(entries(tracing)) == 1


@pytest.mark.parametrize("name", ["set_ftrace_filter", "set_ftrace_notrace"])
def test_filter_is_changed_when_close_returns(klpfs_machine: Machine, name: str) -> None:
    file = klpfs_machine.path(f"sys/kernel/tracing/{name}")
    script = (
        f"for i in 1 2 3 4 5; do echo cmdline_proc_show > {file}; cat {file}; : > {file}; cat {file}; done;"
        f"exec 3> {file}; /bin/echo cmdline_proc_show >&3; cat {file} >&2; exec 3>&-; cat {file}"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[::2] == ["cmdline_proc_show"] * 6
    assert all(line.startswith("####") for line in lines[1::2])
    assert done.stderr.startswith("####")  # not before the last descriptor is closed
