# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows whose reference is a Debian kernel booted in QEMU (TCG), with the host's own tools in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import debian
import qemu
import unicorn

from benchmarks.footprint import mebibytes
from benchmarks.guest import Guest, booted
from benchmarks.mounts import new_directory
from benchmarks.rows import SOURCES, Bench, Figure, Missing, Reach, compare, in_trio, row

QEMU = "QEMU"
TESTED = ("bench_target", "bench_patch")


def debian_kernel(bench: Bench) -> debian.Kernel:
    """The one that is booted. Raises `Missing`."""
    if bench.quick:
        raise Missing("not with --quick: it boots a kernel in QEMU")
    try:
        debian.set_up(*qemu.PACKAGES)
        return debian.kernel()
    except debian.DebianError as error:
        raise Missing(str(error).splitlines()[0]) from None


def debian_modules(bench: Bench, kernel: debian.Kernel) -> Path:
    """The upstream ones and ours, built for it."""
    directory = bench.work / "debian-modules"
    if not directory.exists():
        directory.mkdir()
        try:
            for module in debian.upstream_modules(kernel).glob("*.ko"):
                (directory / module.name).symlink_to(module)
            debian.build(kernel, [SOURCES / f"{name}.c" for name in TESTED], directory)
        except debian.DebianError as error:
            raise Missing(str(error)) from None
    return directory


@contextmanager
def booted_in_qemu(bench: Bench, *arguments: str) -> Iterator[qemu.Qemu]:
    """A shell on Debian's kernel. Raises `Missing`."""
    kernel = debian_kernel(bench)
    try:
        modules = debian_modules(bench, kernel)
        with qemu.Qemu(kernel.vmlinuz, modules=modules, arguments=arguments) as booted:
            yield booted
    except qemu.QemuError as error:
        raise Missing(f"QEMU: {str(error).splitlines()[0]}") from None


# A patched call

LOOP = """
modprobe bench_target
for state in unpatched patched; do
    for n in 0 $1; do
        start=$EPOCHREALTIME
        echo $n >/sys/module/bench_target/parameters/run
        end=$EPOCHREALTIME
        echo "$state $n $((${end/[.,]/} - ${start/[.,]/}))"
    done
    if [[ $state == unpatched ]]; then
        modprobe bench_patch
        while [[ $(</sys/kernel/livepatch/bench_patch/transition) == 1 ]]; do sleep 0.1; done
    fi
done
echo 0 >/sys/kernel/livepatch/bench_patch/enabled
while [[ -e /sys/kernel/livepatch/bench_patch ]]; do sleep 0.1; done
rmmod bench_patch bench_target
"""


def by_loop(machine: qemu.Qemu, count: int) -> float:
    """Microseconds by the guest's clock that a patched call takes longer than an unpatched one."""
    done = machine.run(f"set -- {count}\n{LOOP}")
    took = {(state, n): int(us) for state, n, us in re.findall(r"(\w+) (\d+) (\d+)\n", done.output)}
    if len(took) != 4:
        raise Missing(f"QEMU: {done.output.strip()}")
    loops = {s: took[s, str(count)] - took[s, "0"] for s in ("patched", "unpatched")}
    return (loops["patched"] - loops["unpatched"]) / count


@row("patched-call")
def patched_call(bench: Bench) -> Iterator[Figure]:
    """What a call of a patched function takes more than one of the same function unpatched."""
    count = bench.size(1_000_000, 1000)
    ours, instructions = zip(*in_trio(_patched_call, bench, count), strict=True)
    try:
        with booted_in_qemu(bench) as machine:
            theirs = [by_loop(machine, count) * 1e3 for _ in range(bench.repetitions)]
        # One nanosecond of the guest's time for each instruction.
        with booted_in_qemu(bench, "-icount", "shift=0,sleep=off") as machine:
            counted = by_loop(machine, count) * 1e3
    except Missing as missing:
        yield Figure("patched call", "ns more", min(ours), note=str(missing))
        yield Figure("patched call: instructions", "more", min(instructions))
        return
    yield from compare("patched call", "ns more", list(ours), {QEMU: (theirs, Reach(1))})
    yield Figure("patched call: instructions", "more", min(instructions), counted, QEMU, Reach(1))


async def _patched_call(bench: Bench, count: int) -> AsyncIterator[tuple[float, int]]:
    for _ in range(bench.repetitions):
        async with booted() as guest:
            await guest.insmod(bench, "bench_target")
            took = [await guest.seconds("bench_target_loop", count)]
            instructions = [await executed(guest, "bench_target_function")]
            await guest.insmod(bench, "bench_patch")
            assert guest.kernel.livepatch.universes.patch is None
            took += [await guest.seconds("bench_target_loop", count)]
            instructions += [await executed(guest, "bench_target_function")]
            yield (took[1] - took[0]) / count * 1e9, instructions[1] - instructions[0]


async def executed(guest: Guest, name: str) -> int:
    """How many instructions a call takes."""
    count = 0

    def instruction(*_: object) -> None:
        nonlocal count
        count += 1

    uc = guest.kernel.computer.cpu._uc
    hook = uc.hook_add(unicorn.UC_HOOK_CODE, instruction)
    uc.ctl_flush_tb()
    try:
        await guest.seconds(name, 1)
    finally:
        uc.hook_del(hook)
        uc.ctl_flush_tb()
    return count


# Starting


@row("start")
def start(bench: Bench) -> Iterator[Figure]:
    """From the command to the first file that was read; cold: with an empty cache."""
    figures = [("embedded", "warm", None), ("embedded", "cold", None)]
    theirs: float | None = None
    why = ""
    try:
        kernel = debian_kernel(bench)
        figures += [("distribution", kind, kernel.vmlinuz) for kind in ("warm", "cold")]
        boots = []
        for _ in range(min(3, bench.repetitions)):
            with booted_in_qemu(bench) as machine:
                boots.append(machine.seconds_to_shell)
        theirs = sorted(boots)[len(boots) // 2]
    except Missing as missing:
        why = str(missing)
    for name, kind, vmlinuz in figures:
        repetitions = bench.repetitions if kind == "warm" else 1
        took = sorted(to_first_cat(bench, vmlinuz, kind) for _ in range(repetitions))
        yield Figure(
            f"start: {name}, {kind}", "s", took[len(took) // 2], theirs, f"{QEMU} to a shell",
            Reach(1 / 20) if kind == "warm" else None, note=why,
        )  # fmt: skip


def to_first_cat(bench: Bench, vmlinuz: Path | None, kind: str) -> float:
    """Seconds."""
    environment = dict(os.environ)
    if kind == "cold":
        environment["XDG_CACHE_HOME"] = str(new_directory(bench, "cache"))
    mountpoint = new_directory(bench, "start")
    klpfs = [sys.executable, "-P", "-m", "klpfs"]
    options = ["--kernel", str(vmlinuz)] if vmlinuz else []
    begin = time.monotonic()
    subprocess.run([*klpfs, "mount", *options, str(mountpoint)], env=environment, check=True)
    subprocess.run(["cat", mountpoint / "proc/cmdline"], stdout=subprocess.DEVNULL, check=True)
    took = time.monotonic() - begin
    subprocess.run([*klpfs, "umount", str(mountpoint)], check=True)
    return took


# From insmod to rmmod

SAMPLE_STORY = """
took() { local now=$EPOCHREALTIME; echo "$1 $((${now/[.,]/} - ${start/[.,]/}))"; start=$EPOCHREALTIME; }
patch=/sys/kernel/livepatch/livepatch_sample
file=$(modinfo -n livepatch-sample 2>/dev/null || modprobe -R livepatch-sample)
for i in $(seq $1); do
    start=$EPOCHREALTIME
    insmod $file; took insmod
    while [[ $(<$patch/transition) == 1 ]]; do sleep 0.01; done; took enable
    echo 0 >$patch/enabled
    while [[ -e $patch ]]; do sleep 0.01; done; took disable
    rmmod livepatch_sample
done
"""


@row("sample")
def sample(bench: Bench) -> Iterator[Figure]:
    """The same shell script on both: from insmod(8) on, with the stock tools."""
    count = bench.size(10, 1)
    script = f"set -- {count}\n{SAMPLE_STORY}"
    theirs, why = "", ""
    try:
        with booted_in_qemu(bench) as machine:
            theirs = machine.run(script).output
    except Missing as missing:
        why = str(missing)
    ours = under_klpfs(bench, script)
    for step in ("insmod", "enable", "disable"):
        mine, booted = (
            [int(us) / 1e3 for us in re.findall(rf"^{step} (\d+)$", output, re.MULTILINE)]
            for output in (ours, theirs)
        )
        if not mine:
            raise Missing(f"klpfs run: {ours.strip()}")
        if booted:
            yield from compare(f"sample: {step}", "ms", mine, {QEMU: (booted, Reach(1))})
        else:
            yield Figure(f"sample: {step}", "ms", sorted(mine)[len(mine) // 2], note=why)


def under_klpfs(bench: Bench, script: str) -> str:
    """What a script prints under ``klpfs run``."""
    source = debian.SCRIPTS.parent / "modules/samples/livepatch-sample.c"
    modules = new_directory(bench, "sample")
    klpfs = [sys.executable, "-P", "-m", "klpfs"]
    subprocess.run([*klpfs, "build", "-q", "-o", str(modules), str(source)], check=True)
    command = [
        *klpfs,
        "run",
        "--kernel",
        "embedded",
        "--modules",
        str(modules),
        "--",
        "bash",
        "-c",
        script,
    ]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.stdout + done.stderr


@row("selftests")
def selftests(bench: Bench) -> Iterator[Figure]:
    """The 22 upstream cases on both, by scripts/qemu-selftests."""
    debian_kernel(bench)
    command = [str(debian.SCRIPTS / "qemu-selftests"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.startswith("{"):
        raise Missing((done.stderr or done.stdout).strip()[-200:])
    results = json.loads(done.stdout)
    theirs, *machines = results.items()
    for name, ours in machines:
        for title, key in (("", "seconds"), (", with the boot", "seconds_with_boot")):
            yield Figure(
                f"selftests: {name}{title}", "s", ours[key], theirs[1][key], QEMU, Reach(1 / 4),
                note=f"{ours['passed']} of {ours['of']} passed, {theirs[1]['passed']} in QEMU",
            )  # fmt: skip


@row("qemu-memory")
def qemu_memory(bench: Bench) -> Iterator[Figure]:
    """Resident pages of QEMU with a shell."""
    with booted_in_qemu(bench) as machine:
        yield Figure("memory: QEMU", "MiB", mebibytes(machine.pid, "Rss"))
