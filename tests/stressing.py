# SPDX-License-Identifier: GPL-2.0-or-later
"""Many processes at one machine: they read, list, stat and write while modules come and go and patches
flip, and some are killed. See ``scripts/stress``.

What must hold: no error but those that the kernel would give (`EXPECTED`), every process gets on, and the
daemon does not grow once it is warm.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import select
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from klpfs import control
from klpfs.modules import kbuild
from klpfs.mounting import mounts
from klpfs.pytest_plugin import Machine

VICTIM = """// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
static int number = 1;
module_param(number, int, 0644);
static struct task_struct *task;
noinline int victim_version(void);
noinline int victim_version(void)
{
	barrier();
	return 1;
}
static int victim_run(void *data)
{
	while (!kthread_should_stop()) {
		victim_version();
		msleep_interruptible(20);
	}
	return 0;
}
static int victim_show(struct seq_file *m, void *v)
{
	seq_printf(m, "version %d number %d\\n", victim_version(), number);
	return 0;
}
static int victim_init(void)
{
	if (!proc_create_single("stress_victim", 0, NULL, victim_show))
		return -ENOMEM;
	task = kthread_run(victim_run, NULL, "stress_victim");
	return 0;
}
static void victim_exit(void)
{
	kthread_stop(task);
	remove_proc_entry("stress_victim", NULL);
}
module_init(victim_init);
module_exit(victim_exit);
MODULE_LICENSE("GPL");
"""

PATCH = """// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
static int new_cmdline(struct seq_file *m, void *v)
{
	seq_puts(m, "%(name)s\\n");
	return 0;
}
static int new_version(void)
{
	return 2;
}
static struct klp_func vmlinux_funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = new_cmdline }, { }
};
static struct klp_func victim_funcs[] = {
	{ .old_name = "victim_version", .new_func = new_version }, { }
};
static struct klp_object objs[] = {
	{ .funcs = vmlinux_funcs }, { .name = "stress_victim", .funcs = victim_funcs }, { }
};
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs, .replace = %(replace)s };
static int patch_init(void)
{
	return klp_enable_patch(&patch);
}
static void patch_exit(void)
{
}
module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"""

SOURCES = {
    "stress_victim": VICTIM,
    "stress_patch": PATCH % {"name": "stress_patch", "replace": "false"},
    "stress_replace": PATCH % {"name": "stress_replace", "replace": "true"},
}

EXPECTED: dict[str, set[int]] = {
    "open": {errno.ENOENT, errno.ENODEV, errno.EACCES},
    "read": {errno.ENODEV, errno.EACCES},  # EACCES: clear_warn_once of debugfs cannot be read
    "stat": {errno.ENOENT},
    "list": {errno.ENOENT},
    "write": {errno.EINVAL, errno.ENODEV, errno.EBUSY, errno.EAGAIN, errno.EIO},
    "insmod": {errno.EEXIST, errno.EBUSY, errno.EINVAL},
    "rmmod": {errno.ENOENT, errno.EAGAIN, errno.EBUSY},
    "kmsg": {errno.EPIPE, errno.EAGAIN},
}
"""What the kernel says of something that has gone, or is in use, or makes no sense."""

ROLES = {"reader": 22, "walker": 12, "statter": 8, "writer": 8, "loader": 6, "flipper": 2,
         "listener": 4, "victim": 2}  # fmt: skip
"""How many of 64 processes do what."""
STUCK = 30.0
"""Seconds in which every process must have got on."""
SAMPLE = 1.0

_SLOT = struct.Struct("d16s")  # since when, and at what


class Memory(NamedTuple):
    """The daemon's: seconds since the start, resident KiB (`measure`), open descriptors."""

    at: float
    kib: int
    descriptors: int


class Over(Exception):
    """The time is over."""


class Work:
    """What one process does, and what came of it."""

    def __init__(
        self, root: Path, modules: dict[str, bytes], board: mmap.mmap, slot: int, until: float
    ) -> None:
        self.root = root
        self.until = until
        self.modules = modules
        self.done: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.random = random.Random(slot)
        self._board, self._slot = board, slot * _SLOT.size

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """One operation: counted, and its error, too. Raises `Over`."""
        now = time.monotonic()
        if now > self.until:
            raise Over
        _SLOT.pack_into(self._board, self._slot, now, what.encode())
        try:
            yield
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            self.errors[what, name] += 1
        self.done[what] += 1

    def read(self, path: str | Path) -> None:
        with self.attempt("open"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                with self.attempt("read"):
                    while os.read(descriptor, 65536):
                        pass
            finally:
                os.close(descriptor)

    def write(self, path: str | Path, data: bytes) -> None:
        with self.attempt("open"):
            descriptor = os.open(path, os.O_WRONLY)
            try:
                with self.attempt("write"):
                    os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def walk(self, top: Path) -> list[str]:
        """All files below a directory, as far as they stay while one looks."""
        files, directories = [], [str(top)]
        while directories:
            with self.attempt("list"), os.scandir(directories.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    else:
                        files.append(entry.path)
        return files


def reader(work: Work) -> None:
    files = work.walk(work.root / "sys") + [str(work.root / "proc" / name) for name in
            ("cmdline", "meminfo", "version", "modules", "stress_victim", "uptime", "kallsyms")]  # fmt: skip
    for path in work.random.choices(files, k=30):
        if not path.endswith("available_filter_functions"):
            work.read(path)


def walker(work: Work) -> None:
    for path in work.walk(work.root / work.random.choice(["sys", "sys/module", "proc", "machine"])):
        with work.attempt("stat"):
            os.lstat(path)


def statter(work: Work) -> None:
    names = ["module", "module/stress_victim/parameters/number", "module/stress_patch/refcnt",
             "kernel/livepatch/stress_patch/enabled", "kernel/livepatch/stress_replace/vmlinux",
             "module/stress_victim/holders", "kernel/livepatch"]  # fmt: skip
    for name in work.random.choices(names, k=20):
        with work.attempt("stat"):
            os.stat(work.root / "sys" / name)


def writer(work: Work) -> None:
    livepatch = work.root / "sys/kernel/livepatch"
    work.write(work.root / "sys/module/stress_victim/parameters/number", b"%d\n" % os.getpid())
    work.write(work.root / "sys/module/stress_victim/parameters/number", b"nonsense\n")
    work.write(work.root / "proc/sys/kernel/ftrace_enabled", b"1\n")
    work.write(work.root / "dev/kmsg", b"<6>stress: %d\n" % os.getpid())
    patch = work.random.choice(["stress_patch", "stress_replace"])
    work.write(livepatch / patch / "enabled", work.random.choice([b"0\n", b"1\n", b"junk\n"]))
    work.write(livepatch / patch / "force", b"0\n")


def loader(work: Work) -> None:
    name, module = work.random.choice(list(work.modules.items()))
    with work.attempt("insmod"):
        control.insmod(work.root, module)
    time.sleep(work.random.uniform(0, 0.1))
    with work.attempt("rmmod"):
        control.rmmod(work.root, name)


def flipper(work: Work) -> None:
    """Sees to it that a patch comes, is enabled, disabled and goes."""
    name = work.random.choice(["stress_patch", "stress_replace"])
    enabled = work.root / "sys/kernel/livepatch" / name / "enabled"
    with work.attempt("insmod"):
        control.insmod(work.root, work.modules[name])
    for text in (b"0\n", b"1\n", b"0\n"):
        work.write(enabled, text)
        work.read(work.root / "proc/cmdline")
        work.read(enabled.parent / "transition")
    with work.attempt("rmmod"):
        control.rmmod(work.root, name)


def listener(work: Work) -> None:
    with work.attempt("open"):
        log = os.open(work.root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(log, 0, os.SEEK_END)
            poll = select.poll()
            poll.register(log, select.POLLIN)
            for _ in range(50):
                with work.attempt("poll"):
                    poll.poll(200)
                with work.attempt("kmsg"):
                    os.read(log, 8192)
        finally:
            os.close(log)


def victim(work: Work) -> None:
    """Has a child that does something else, and kills it in the middle of that."""
    child = os.fork()
    if child == 0:
        try:
            work.random.seed()
            while True:
                work.random.choice([reader, writer, walker, loader, listener])(work)
        finally:
            os._exit(1)
    time.sleep(work.random.uniform(0, 0.3))
    with work.attempt("kill"):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


JOBS: dict[str, Callable[[Work], None]] = {
    job.__name__: job
    for job in (reader, walker, statter, writer, loader, flipper, listener, victim)
}


def run_worker(work: Work, job: Callable[[Work], None], result: int) -> None:
    """In a process of its own: do the job over and over, and report."""
    trouble = ""
    try:
        while True:
            job(work)
    except Over:
        pass
    except BaseException as error:
        trouble = repr(error)
    _SLOT.pack_into(work._board, work._slot, 0.0, b"")
    report = {"done": work.done, "errors": [[*key, n] for key, n in work.errors.items()],
              "trouble": trouble}  # fmt: skip
    with os.fdopen(result, "w") as file:
        json.dump(report, file)


def measure(process: int, start: float) -> Memory:
    """Of the process, without what has a limit of its own (`BOUNDED`)."""
    kib, counts = 0, False
    with open(f"/proc/{process}/smaps") as lines:
        for line in lines:
            field = line.split()
            if not field[0].endswith(":"):
                low, high = (int(end, 16) for end in field[0].split("-"))
                counts = high - low < BOUNDED
            elif field[0] == "Rss:" and counts:
                kib += int(field[1])
    return Memory(time.monotonic() - start, kib, len(os.listdir(f"/proc/{process}/fd")))


BOUNDED = 60 << 20
"""Mappings as large as this are the guest's RAM, and the code that unicorn has translated."""
GROWTH_KIB = 16 << 10
"""What the daemon may grow by once it is warm: the guest's log fills, and memory fragments."""


def _ignore(text: str) -> None:
    """Show nothing."""


class Report(NamedTuple):
    """What came of it."""

    seconds: float
    processes: int
    operations: int
    rate: float
    done: dict[str, int]
    errors: dict[str, int]
    """By operation and errno; those that are `EXPECTED` too."""
    unexpected: dict[str, int]
    stuck: list[str]
    """Processes that did not get on, and at what."""
    memory: list[Memory]
    growth_kib: int
    """From the end of the first quarter to the end."""
    growth_descriptors: int
    allocations: tuple[int, int]
    """Of the guest, before and after, with no module loaded."""
    lockups: list[str]
    """Lines of the guest's log that tell of trouble."""
    daemon_log: str

    @property
    def good(self) -> bool:
        return not (
            self.unexpected or self.stuck or self.lockups or self.daemon_log
            or self.growth_descriptors > 0 or self.growth_kib > GROWTH_KIB
            or self.allocations[1] > self.allocations[0]
        )  # fmt: skip

    def text(self) -> str:
        lines = [
            f"{self.processes} processes, {self.seconds:.0f} s: {self.operations} operations, "
            f"{self.rate:.0f} a second",
            "  " + ", ".join(f"{name} {count}" for name, count in sorted(self.done.items())),
            "errors that a kernel gives: "
            + (", ".join(f"{name} {n}" for name, n in sorted(self.errors.items())) or "none"),
            "other errors: "
            + (", ".join(f"{name} {n}" for name, n in sorted(self.unexpected.items())) or "none"),
            "processes that got stuck: " + ("; ".join(self.stuck) or "none"),
            "the guest's log: " + ("; ".join(self.lockups) or "no trouble"),
            f"the daemon: {self.memory[0].kib >> 10} MiB and {self.memory[0].descriptors} descriptors "
            f"at first, {self.memory[-1].kib >> 10} MiB and {self.memory[-1].descriptors} at the end; "
            f"growth after warm-up {self.growth_kib} KiB, {self.growth_descriptors} descriptors",
            f"the guest: {self.allocations[0]} allocations before, {self.allocations[1]} after",
            "the daemon's log: " + (self.daemon_log or "empty"),
        ]
        return "\n".join(lines)


def stress(
    place: Path, seconds: float, processes: int = 64, show: Callable[[str], None] = _ignore
) -> Report:
    """Mount a machine in ``place``, and let ``processes`` use it for ``seconds``.

    ``show`` is called now and then with what is happening.
    """
    show("building modules and mounting a machine")
    files = place / "mount", place / "log"
    files[0].mkdir()
    machine = Machine(files[0], "--log-file", str(files[1]))
    try:
        report = _stress(machine, place, seconds, processes, show)
    finally:
        machine.umount()
    return report._replace(daemon_log=files[1].read_text().strip())


def _stress(
    machine: Machine, place: Path, seconds: float, processes: int, show: Callable[[str], None]
) -> Report:
    root = machine.mountpoint
    modules = {}
    for name, text in SOURCES.items():
        (place / f"{name}.c").write_text(text)
        modules[name] = kbuild.build([place / f"{name}.c"], place)[0].read_bytes()
    mount = mounts.mount_at(str(root))
    assert mount is not None
    server = mounts.daemon_of(mount)
    assert server is not None
    once_around(machine, modules)
    before = allocations(machine)
    board = mmap.mmap(-1, _SLOT.size * processes)
    start = time.monotonic()
    until = start + seconds
    names = [name for name, count in ROLES.items() for _ in range(count)]
    workers: dict[int, tuple[str, int]] = {}
    for slot in range(processes):
        name = names[slot * len(names) // processes]
        result, there = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                run_worker(Work(root, modules, board, slot, until), JOBS[name], there)
            finally:
                os._exit(0)
        os.close(there)
        workers[process] = name, result
    stuck: list[str] = []
    memory = [measure(server, start)]
    try:
        while time.monotonic() < until + 1:
            time.sleep(SAMPLE)
            memory.append(measure(server, start))
            show(f"{processes} processes, {max(until - time.monotonic(), 0):.0f} s to go")
            if stuck := look(board, list(workers), [name for name, _ in workers.values()], STUCK):
                break
        deadline = time.monotonic() + STUCK
        while not stuck and any(map(working, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        stuck = stuck or look(board, list(workers), [name for name, _ in workers.values()], 0)
        reports = [] if stuck else [json.load(os.fdopen(result)) for _, result in workers.values()]
        elapsed = time.monotonic() - start
    finally:
        for process in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in [] if stuck else workers:
            os.waitpid(process, 0)
    done: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    unexpected: Counter[str] = Counter()
    for report in reports:
        done.update(report["done"])
        if report["trouble"]:
            unexpected[report["trouble"]] += 1
        for what, name, count in report["errors"]:
            known = getattr(errno, name, None) in EXPECTED.get(what, ())
            (errors if known else unexpected)[f"{what} {name}"] += count
    after = before
    if not stuck:
        clean_up(machine, modules)
        after = allocations(machine)
        memory.append(measure(server, start))
    warm = next((m for m in memory if m.at >= seconds / 4), memory[-1])
    trouble = [line for line in machine.dmesg() if is_trouble(line)]
    total = sum(done.values())
    return Report(
        seconds, processes, total, total / elapsed, dict(done), dict(errors), dict(unexpected),
        stuck, memory, memory[-1].kib - warm.kib,
        memory[-1].descriptors - min(m.descriptors for m in memory), (before, after), trouble, "",
    )  # fmt: skip


def is_trouble(line: str) -> bool:
    return any(word in line for word in ("BUG:", "WARNING:", "Oops", "lockup", "blocked for more"))


def look(board: mmap.mmap, processes: list[int], names: list[str], patience: float) -> list[str]:
    """Who has been at one operation for longer than ``patience`` seconds."""
    late = []
    for slot, (process, name) in enumerate(zip(processes, names, strict=True)):
        since, what = _SLOT.unpack_from(board, slot * _SLOT.size)
        if since and time.monotonic() - since > patience and working(process):
            with contextlib.suppress(OSError):
                wchan = Path(f"/proc/{process}/wchan").read_text()
                late.append(f"{name} {process} in {what.rstrip(bytes(1)).decode()} ({wchan})")
    return late


def working(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def once_around(machine: Machine, modules: dict[str, bytes]) -> None:
    """Everything once, so that what is made once is made."""
    for name, module in modules.items():
        machine.insmod(module)
        if name != "stress_victim":
            machine.write(f"sys/kernel/livepatch/{name}/enabled", "0")
            machine.wait_until_gone(f"sys/kernel/livepatch/{name}")
    clean_up(machine, modules)


def clean_up(machine: Machine, modules: dict[str, bytes]) -> None:
    """No patch, no module."""
    for name in reversed(modules):
        enabled = f"sys/kernel/livepatch/{name}/enabled"
        if machine.path(enabled).exists():
            with contextlib.suppress(OSError):
                machine.write(enabled, "0")
            machine.wait_until_gone(f"sys/kernel/livepatch/{name}")

        def removed(name: str = name) -> bool:
            with contextlib.suppress(OSError):
                machine.rmmod(name)
            return not machine.path(f"sys/module/{name}").exists()

        machine.wait_until(removed, f"the end of {name}")


def allocations(machine: Machine) -> int:
    return len(machine.read("machine/allocations").splitlines())
