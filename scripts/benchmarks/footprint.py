# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory and idle CPU time of a mount's daemon."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.mounts import mounted
from benchmarks.rows import Bench, Figure, Missing, Target, needs, row
from klpfs.pytest_plugin import Machine


def daemon(machine: Machine) -> int:
    """Return the pid of a mount's daemon."""
    return int(machine.read("machine/pid"))


def mebibytes(process: int, field: str, file: str = "smaps_rollup") -> float:
    """Return a field, such as Rss or Pss, of a process."""
    text = Path(f"/proc/{process}/{file}").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def module(bench: Bench, number: int) -> Path:
    """Build a module that does nothing, and return its path."""
    name = f"bench_many_{number}"
    text = (
        "// SPDX-License-Identifier: GPL-2.0-or-later\n#include <linux/module.h>\n"
        "static int __init many_init(void)\n{\n\treturn 0;\n}\n"
        "static void __exit many_exit(void)\n{\n}\n"
        'module_init(many_init);\nmodule_exit(many_exit);\nMODULE_LICENSE("GPL");\n'
    )
    return bench.build_fresh(name, text)


@row("memory")
def memory(bench: Bench) -> Iterator[Figure]:
    """Resident pages of a daemon, and what each further daemon adds; shared pages count once."""
    counts = (0, 10, 100) if not bench.quick else (0, 2)
    modules = [module(bench, number) for number in range(counts[-1])]
    with mounted(bench) as machine:
        loaded = 0
        for count in counts:
            for each in modules[loaded:count]:
                machine.insmod(each)
            loaded = count
            machine.read("proc/cmdline")
            yield Figure(
                f"memory: {count} modules", "MiB", mebibytes(daemon(machine), "Rss"),
                target=Target(80, of="ours"),
            )  # fmt: skip
    with ExitStack() as stack:
        machines, sums = bench.size(50, 2), []
        for _ in range(machines):
            machine = stack.enter_context(mounted(bench))
            machine.read("proc/cmdline")
            sums.append(daemon(machine))
        alone = mebibytes(sums[0], "Rss")
        together = sum(mebibytes(process, "Pss") for process in sums)
        yield Figure(
            f"memory: each further machine, of {machines}",
            "MiB",
            (together - alone) / (machines - 1),
            target=Target(50, of="ours"),
        )


@row("idle")
def idle(bench: Bench) -> Iterator[Figure]:
    """System calls of a daemon that has no requests, counted by strace(1)."""
    seconds = bench.size(10, 1)
    with mounted(bench) as machine:
        machine.read("proc/cmdline")
        process = daemon(machine)
        time.sleep(0.2)
        before = cpu_seconds(process)
        calls = system_calls(process, seconds)
        used = cpu_seconds(process) - before
    yield Figure(
        f"idle: system calls in {seconds} s", "", calls, target=Target(0, of="ours"),
        note=f"{used * 1e3:.3g} ms of CPU time",
    )  # fmt: skip


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, as the scheduler counts it: exact enough for one wake-up."""
    nanoseconds = 0
    for thread in Path(f"/proc/{process}/task").iterdir():
        nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def system_calls(process: int, seconds: float) -> float:
    """Return how many system calls a process begins in ``seconds``."""
    needs("strace")
    command = ["timeout", "-s", "INT", str(seconds), "strace", "-f", "-c", "-p", str(process)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "attach" in done.stderr and "Operation not permitted" in done.stderr:
        raise Missing("strace may not attach here")
    calls = 0
    for line in done.stderr.splitlines():
        # % time, seconds, usecs/call, calls, [errors,] name
        if found := re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*\b(\w+)$", line):
            calls += int(found[1]) if found[2] != "total" else 0
    return float(calls)
