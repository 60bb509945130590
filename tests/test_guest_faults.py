# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile and broken modules: the log, the result for the caller, and that the machine still works.

Each row loads tests/modules/faulty_000.c under a new name.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from klpfs.machine.kernel.vsprintf import LOG_LINE_MAX
from klpfs.pytest_plugin import Machine

SECONDS = 30
NAME = b"faulty_000"
COMM = re.escape(Path("/proc/self/comm").read_text().strip())
"""The name of the process that runs the tests, for a regular expression: python or pytest."""
DIE, WARN, BAD_PAGE, SOFTLOCKUP = 1 << 7, 1 << 9, 1 << 5, 1 << 14

Ko = Callable[..., Path]


class Faulty:
    """A machine, and modules that fail as their parameters say."""

    def __init__(self, machine: Machine, ko: bytes) -> None:
        self.machine = machine
        self._ko = ko
        self._numbers = itertools.count(1)
        self.name = ""

    def module(self) -> bytes:
        """Return the file of the module under a new name."""
        self.name = f"faulty_{next(self._numbers):03d}"
        return self._ko.replace(NAME, self.name.encode())

    def load(self, fault: str, *parameters: str) -> int:
        """Clear the log and load the module. Return the errno, 0 for success."""
        self.machine.clear_log()
        try:
            self.machine.insmod(self.module(), f"fault={fault}", *parameters)
        except OSError as error:
            return error.errno or 0
        return 0

    @property
    def taint(self) -> int:
        return int(self.machine.read("proc/sys/kernel/tainted"))

    def lives(self) -> None:
        """Check that the machine still works: guest code, services, sysfs, the log."""
        machine = self.machine
        assert machine.read("proc/cmdline").endswith("\n")
        assert machine.read("proc/meminfo").startswith("MemTotal:")
        assert "livepatch" in os.listdir(machine.path("sys/kernel"))
        assert "Linux version" in machine.read("proc/version")
        assert not [line for line in machine.dmesg() if "kernel BUG at machine/kernel" in line]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, ko: Ko) -> Iterator[Faulty]:
    machine = Machine(tmp_path_factory.mktemp("machine"), "--virtual-time", "--memory", "64M")
    yield Faulty(machine, ko("faulty_000").read_bytes())
    machine.umount()


@pytest.fixture
def faulty(shared: Faulty) -> Iterator[Faulty]:
    """Return a machine that is shared by tests, in which modules have failed already."""
    yield shared
    shared.lives()


@pytest.fixture
def fresh(klpfs_machine: Machine, ko: Ko) -> Iterator[Faulty]:
    """Return a new machine in virtual time."""
    faulty = Faulty(klpfs_machine, ko("faulty_000").read_bytes())
    yield faulty
    faulty.lives()


@pytest.fixture
def real_time(klpfs_mount: Callable[..., Machine], ko: Ko) -> Iterator[Faulty]:
    """Return a new machine in real time, for tests with signals."""
    faulty = Faulty(klpfs_mount(), ko("faulty_000").read_bytes())
    yield faulty
    faulty.lives()


def has(log: list[str], *patterns: str) -> None:
    """Check that the log has lines that match the patterns, in this order."""
    lines = iter(log)
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in lines), pattern + " in\n" + "\n".join(log)


NULL = "^BUG: kernel NULL pointer dereference, address: "
PAGE = "^BUG: unable to handle page fault for address: "
GPF = r"^general protection fault: 0000 \[#\d+\] PREEMPT$"
NX = r"^kernel tried to execute NX-protected page - exploit attempt\? \(uid: 0\)$"


def oops(code: int) -> str:
    return rf"^Oops: {code:04x} \[#\d+\] PREEMPT$"


KILLED = [
    ("read_null", NULL + "0{15}8$", "#PF: supervisor read access in kernel mode", oops(0)),
    ("write_null", NULL + "0{14}10$", "#PF: supervisor write access in kernel mode", oops(2)),
    ("call_null", NULL + "0{16}$", "#PF: supervisor instruction fetch in kernel mode", oops(0x10)),
    ("read_wild", PAGE + "ffff800000001000$", r"#PF: error_code\(0x0000\) - not-present page", oops(0)),
    ("write_wild", PAGE + "ffff800000001000$", oops(2)),
    ("call_wild", PAGE + "ffff800000001000$", oops(0x10), "Code: Unable to access opcode bytes"),
    ("read_noncanonical", "^general protection fault, probably for non-canonical address "
     r"0xdead000000000100: 0000 \[#\d+\] PREEMPT$"),
    ("call_noncanonical", GPF, "^RIP: 0010:0xdead000000000100$"),
    ("write_text", PAGE + "ffffffffa", r"error_code\(0x0003\) - permissions violation", oops(3)),
    ("write_rodata", PAGE + "ffffffffa", oops(3)),
    ("write_kernel_text", PAGE + "ffffffff81", oops(3)),
    ("write_direct_map", PAGE + "ffff8880", oops(3)),
    ("modify_itself", PAGE + "ffffffffa", oops(3), "^RIP: 0010:modify_itself"),
    ("execute_data", NX, PAGE + "ffffffffa", oops(0x11)),
    ("execute_stack", NX, PAGE + "ffffc9", oops(0x11)),
    ("execute_heap", NX, PAGE + "ffff8880", oops(0x11)),
    ("overflow_stack", r"^BUG: TASK stack guard page was hit at ffffc9\w+ \(stack is ffffc9\w+\.\.ffffc9",
     r"^stack guard page: 0000 \[#\d+\] PREEMPT$", "^RIP: 0010:recurse"),
    ("return_nowhere", PAGE + "0{12}1234$", oops(0x10)),
    ("lose_stack", PAGE, oops(2), "^RIP: 0010:lose_stack"),
    ("int3", r"^int3: 0000 \[#\d+\] PREEMPT$"),
    ("int_0x80", r"^segment-related general protection fault: 0402 \[#\d+\] PREEMPT$"),
    ("ud2", r"^invalid opcode: 0000 \[#\d+\] PREEMPT$", "^RIP: 0010:ud2"),
    ("bug", "^-+. cut here .-+$", r"^kernel BUG at faulty_\d+\.c:\d+!$", "^invalid opcode: 0000 "),
    ("bug_on", r"^kernel BUG at faulty_\d+\.c:\d+!$", "^invalid opcode: 0000 ", "^RIP: 0010:bug_on"),
    ("divide", r"^divide error: 0000 \[#\d+\] PREEMPT$"),
    ("mov_cr0", GPF, "^RIP: 0010:mov_cr0"),
    ("mov_cr3", GPF, "^RIP: 0010:mov_cr3"),
    ("mov_cr4", GPF, "^RIP: 0010:mov_cr4"),
    ("wrmsr_efer", GPF, "^RIP: 0010:wrmsr_efer"),
    ("wrmsr_gs", GPF, "^RIP: 0010:wrmsr_gs"),
    ("swapgs", NULL + "0{16}$"),
    ("lidt", GPF),
    ("lgdt", GPF),
    ("iretq", GPF, "^RIP: 0010:iretq"),
    ("to_user_mode", GPF),
    ("sysret", GPF),
    ("syscall", GPF),
    ("free_wild", PAGE + "ffff800000001000$", "^RIP: 0010:kfree"),
    ("use_after_free", "^general protection fault, probably for non-canonical address 0x6b6b6b6b6b6b6b6b: "),
    ("random_huge", PAGE, "^RIP: 0010:get_random_bytes"),
    ("printk_wild", "^general protection fault, probably for non-canonical address 0xdead000000000100: "),
    ("printk_string", PAGE + "ffff800000001000$"),
    ("service_null", NULL + "0{16}$", "^RIP: 0010:mutex_lock"),
    ("service_wild", "^general protection fault, probably for non-canonical address 0xdead000000000100: "),
    ("service_kthread", PAGE + "ffff800000001000$"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "patterns"), [(row[0], row[1:]) for row in KILLED],
                         ids=[row[0] for row in KILLED])  # fmt: skip
def test_faults_that_kill_the_task(faulty: Faulty, fault: str, patterns: tuple[str, ...]) -> None:
    assert faulty.load(fault) == errno.EFAULT
    has(faulty.machine.dmesg(), *patterns, "^Call Trace:$", "^Modules linked in: .*" + faulty.name,
        "^---. end trace 0000000000000000 .---$")  # fmt: skip
    assert faulty.taint & DIE
    # The task is dead, and its module stays in the state COMING for ever.
    assert faulty.machine.read(f"sys/module/{faulty.name}/initstate") == "coming\n"


HUGE = f"value={(1 << 64) - 1}"
SURVIVED: list[tuple[tuple[str, ...], int, *tuple[str, ...]]] = [
    (("warn_on",), WARN, r"^WARNING: CPU: 0 PID: \d+ at faulty_\d+\.c:\d+ warn_on\+", "^RIP: 0010:warn_on"),
    (("warn_text",), WARN, "^the number is 7$", "^WARNING: CPU: 0 PID: "),
    (("cli",), WARN, r"^initcall faulty_init\+0x0/0x\w+ .faulty_\d+. returned with disabled interrupts $"),
    (("keep_spinning",), WARN, "^initcall .* returned with preemption imbalance $", "^WARNING: "),
    (("hlt",), 0),
    (("out",), 0),
    (("in",), 0, "^faulty: in gave ffffffff$"),
    (("none", "where=nowhere", "value=7"), 0, r"^do_init_module: 'faulty_\d+'->init suspiciously returned 7, "
     "it should follow 0/-E convention$", "^do_init_module: loading module anyway...$"),
    (("unlock_unlocked",), 0, r"^DEBUG_LOCKS_WARN_ON\(__mutex_owner\(lock\) != current\)"),
    (("keep_locked",), 0),
    (("mutex_atomic",), WARN,
     "^BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580$",
     r"^in_atomic\(\): 1, irqs_disabled\(\): 0, non_block: 0, pid: \d+, name: ",
     "^preempt_count: 1, expected: 0$"),
    (("kmalloc_huge", "value=100000000"), 0, "^faulty: kmalloc 1$"),
    (("kmalloc_huge", HUGE), 0, "^faulty: kmalloc 1$"),
    (("vmalloc_huge", "value=1000000000000"), 0,
     ": vmalloc error: size 1000000000000, exceeds total pages, mode:", "^faulty: vmalloc 1$"),
    (("kvmalloc_huge", HUGE), 0, "^faulty: kvmalloc 1$"),
    (("pages_huge", "value=4000000000"), 0, "^faulty: pages 1$"),
    (("double_free",), BAD_PAGE, r"^BUG kmalloc-64 \(.*\): Object already free$",
     r"^FIX kmalloc-64: Object at 0x\w+ not freed$"),
    (("free_inside",), BAD_PAGE, r"^BUG kmalloc-64 \(.*\): Invalid object pointer 0x\w+8$"),
    (("free_static",), WARN, "^WARNING: CPU: 0 PID: .* free_large_kmalloc$", "^object pointer: 0x"),
    (("vfree_wild",), WARN, r"^Trying to vfree\(\) nonexistent vm area \(0xffff800000001000\)$"),
    (("write_after_free",), BAD_PAGE, r"^BUG kmalloc-64 \(.*\): Poison overwritten$",
     r"First byte 0x78 instead of 0x6b$", "^FIX kmalloc-64: Restoring Poison "),
    (("printk_n",), WARN, "^Please remove unsupported %n in format string$"),
    (("printk_wide",), WARN, "^field width 2000000000 too large$"),
    (("printk_long",), 0),
    (("printk_bytes",), 0, "\udcff\udcfe\udc80 \x1b"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "taint", "patterns"), [(row[0], row[1], row[2:]) for row in SURVIVED],
                         ids=["-".join(row[0]) for row in SURVIVED])  # fmt: skip
def test_faults_that_the_task_survives(
    faulty: Faulty, given: tuple[str, ...], taint: int, patterns: tuple[str, ...]
) -> None:
    assert faulty.load(*given) == 0
    has(faulty.machine.dmesg(), *patterns)
    assert faulty.taint & taint == taint
    faulty.machine.rmmod(faulty.name)


@pytest.mark.parametrize("size", [8, 4096, 4_000_000])
def test_all_memory_is_taken_and_comes_back(faulty: Faulty, size: int) -> None:
    before = faulty.machine.read("machine/allocations")
    assert faulty.load("take_all", f"value={size}") == 0
    assert f"faulty: had {'few' if size == 4_000_000 else 'many'}" in faulty.machine.dmesg()
    faulty.machine.rmmod(faulty.name)
    assert faulty.machine.read("machine/allocations") == before


def test_what_page_tables_have_at_the_address_of_a_fault(faulty: Faulty) -> None:
    assert faulty.load("read_null") == errno.EFAULT
    has(faulty.machine.dmesg(), NULL, "^#PF: error_code", "^PGD 0 P4D 0 $", "^Oops: 0000 ")
    assert faulty.load("write_text") == errno.EFAULT
    has(
        faulty.machine.dmesg(),
        "permissions violation$",
        "^PGD [0-9a-f]+ P4D [0-9a-f]+ PUD [0-9a-f]+ PMD ",
    )


def test_an_oops_stops_the_tracer(faulty: Faulty) -> None:
    tracing_on = "sys/kernel/tracing/tracing_on"
    faulty.machine.write(tracing_on, "1")
    assert faulty.load("read_null") == errno.EFAULT
    assert faulty.machine.read(tracing_on) == "0\n"


def test_an_oops_while_a_message_is_made(faulty: Faulty) -> None:
    """Code that klpfs has added to the kernel has a name in a call trace."""
    assert faulty.load("printk_wild") == errno.EFAULT
    trace = [
        "^Call Trace:$",
        "^ vsnprintf",
        "^ vscnprintf",
        "^ vprintk_emit",
        "^ _printk",
        "^ printk_wild",
    ]
    has(faulty.machine.dmesg(), *trace)


def test_the_log_has_a_limit(faulty: Faulty) -> None:
    assert faulty.load("flood") == 0
    faulty.machine.rmmod(faulty.name)
    assert 900 < len(faulty.machine.dmesg()) < 1100  # a megabyte
    assert faulty.load("printk_long") == 0
    faulty.machine.rmmod(faulty.name)
    assert faulty.load("in") == 0  # ends the line, whose newline was cut off
    longest = LOG_LINE_MAX - len("\x016\0")
    assert [len(line) for line in faulty.machine.dmesg()] == [
        longest,
        len("faulty: in gave ffffffff"),
    ]


def test_page_tables_that_guest_code_has_overwritten(klpfs_machine: Machine, ko: Ko) -> None:
    """The guest is unusable, as a real machine would be. No host memory is visible, and the mount works."""
    assert Faulty(klpfs_machine, ko("faulty_000").read_bytes()).load("table_spoilt") != 0
    assert klpfs_machine.read("machine/pid").strip().isdecimal()
    with pytest.raises(OSError) as caught:
        klpfs_machine.read("proc/cmdline")
    assert caught.value.errno == errno.EIO
    assert klpfs_machine.read("machine/clock").endswith("virtual\n")


# -- outside of init ------------------------------------------------------------------------------


def test_a_show_function_that_oopses(faulty: Faulty) -> None:
    assert faulty.load("read_null", "where=proc") == 0
    with pytest.raises(OSError) as caught:
        faulty.machine.read("proc/faulty")
    assert caught.value.errno == errno.EFAULT
    has(faulty.machine.dmesg(), NULL, oops(0), "^Call Trace:$", r"^ show\+", r"^ seq_read_iter\+")
    faulty.machine.rmmod(faulty.name)


def test_an_exit_that_oopses(faulty: Faulty) -> None:
    assert faulty.load("read_null", "where=exit") == 0
    with pytest.raises(OSError) as caught:
        faulty.machine.rmmod(faulty.name)
    assert caught.value.errno == errno.EFAULT
    assert faulty.machine.read(f"sys/module/{faulty.name}/initstate") == "going\n"


@pytest.mark.parametrize("where", ["kthread", "work", "timer"])
@pytest.mark.parametrize(
    "fault", ["read_null", "bug", "overflow_stack", "mov_cr3", "service_null", "none"]
)
def test_a_fault_on_a_thread_of_the_kernel(faulty: Faulty, where: str, fault: str) -> None:
    """The thread ends. Those of timers and workqueues are replaced."""
    assert faulty.load(fault, f"where={where}") == 0
    faulty.machine.advance(1)
    log = faulty.machine.dmesg()
    assert any(" PREEMPT" in line for line in log) == (fault != "none")
    assert faulty.load("none", f"where={where}") == 0
    faulty.machine.advance(1)
    assert not faulty.machine.dmesg()


def test_a_timer_and_a_work_that_leave_preemption_off(faulty: Faulty) -> None:
    assert faulty.load("keep_spinning", "where=timer") == 0
    faulty.machine.advance(1)
    has(faulty.machine.dmesg(), r"^timer: timer_function\+.* preempt leak: 00000100 -> 00000101$",
        "^WARNING: ")  # fmt: skip
    assert faulty.load("keep_spinning", "where=work") == 0
    faulty.machine.advance(1)
    has(faulty.machine.dmesg(), r"^BUG: workqueue leaked lock or atomic: kworker/0:\d+/0x00000001/\d+$",
        "last function: work_function")  # fmt: skip


def test_a_show_function_that_leaves_preemption_off(faulty: Faulty) -> None:
    assert faulty.load("keep_spinning", "where=proc") == 0
    assert faulty.machine.read("proc/faulty") == "survived\n"
    has(faulty.machine.dmesg(), r"^BUG: scheduling while atomic: \S+/\d+/0x00000001$")
    faulty.machine.rmmod(faulty.name)


# -- what never ends ------------------------------------------------------------------------------


class Loading:
    """A call of insmod in a thread, which may never return."""

    def __init__(self, faulty: Faulty, fault: str, *parameters: str) -> None:
        self.result: int | None = None
        faulty.machine.clear_log()
        module = faulty.module()

        def load() -> None:
            self.result = 0
            try:
                faulty.machine.insmod(module, f"fault={fault}", *parameters)
            except OSError as error:
                self.result = error.errno

        self._thread = threading.Thread(target=load, daemon=True)
        self._thread.start()
        path = faulty.machine.path(f"sys/module/{faulty.name}/initstate")
        faulty.machine.wait_until(path.exists, "the module's coming")

    def end(self) -> int | None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.result


@pytest.mark.parametrize(
    ("fault", "line", "reason", "taint"),
    [
        ("loop_atomic", rf"^watchdog: BUG: soft lockup - CPU#0 stuck for \d\ds! \[{COMM}:\d+\]$",
         "softlockup: hung tasks", SOFTLOCKUP),
        ("spin_long", "^watchdog: BUG: soft lockup - CPU#0 stuck for ", "softlockup: hung tasks", SOFTLOCKUP),
        ("loop_irqs_off", "^NMI watchdog: Watchdog detected hard LOCKUP on cpu 0$", "Hard LOCKUP", 0),
        ("loop_halted", "^NMI watchdog: Watchdog detected hard LOCKUP on cpu 0$", "Hard LOCKUP", 0),
    ],
)  # fmt: skip
def test_a_lockup(fresh: Faulty, fault: str, line: str, reason: str, taint: int) -> None:
    """No other guest code runs until a watchdog ends the task. Files that need no guest code work."""
    loading = Loading(fresh, fault)
    assert "coming" in fresh.machine.read(f"sys/module/{fresh.name}/initstate")
    assert fresh.name in fresh.machine.read("proc/modules")
    fresh.machine.advance(25)
    assert loading.end() == errno.EFAULT
    has(fresh.machine.dmesg(), line, "^Modules linked in: ", "^RIP: 0010:", "^Call Trace:$",
        f"^Kernel panic - not syncing: {reason}$", "end Kernel panic")  # fmt: skip
    assert fresh.taint & taint == taint


def test_a_lockup_without_panic(fresh: Faulty) -> None:
    fresh.machine.write("proc/sys/kernel/softlockup_panic", "0\n")
    with pytest.raises(OSError):
        fresh.machine.write("proc/sys/kernel/softlockup_panic", "2\n")
    fresh.machine.write("proc/sys/kernel/watchdog_thresh", "5\n")
    loading = Loading(fresh, "loop_atomic")
    fresh.machine.advance(11)
    fresh.machine.advance(11)
    lockups = [line for line in fresh.machine.dmesg() if "soft lockup" in line]
    assert len(lockups) == 2 and "stuck for 11s!" in lockups[0]
    fresh.machine.write("proc/sys/kernel/softlockup_panic", "1\n")
    fresh.machine.advance(11)
    assert loading.end() == errno.EFAULT


@pytest.mark.parametrize("fault", ["loop", "loop_locking", "loop_printing", "loop_allocating",
                                   "loop_unlocking", "loop_sleeping"])  # fmt: skip
def test_a_loop_that_can_be_preempted(fresh: Faulty, ko: Ko, fault: str) -> None:
    """It is not reported as a lockup. Other tasks run, and patches can be applied."""
    assert fresh.load(fault, "where=kthread") == 0
    fresh.machine.advance(60)
    fresh.lives()
    fresh.machine.insmod(ko("livepatch-sample"))
    assert fresh.machine.read("proc/cmdline") == "this has been live patched\n"
    assert not [line for line in fresh.machine.dmesg() if "lockup" in line]


@pytest.mark.parametrize("fault", ["sleep_for_ever", "lock_twice"])
def test_a_hung_task(fresh: Faulty, fault: str) -> None:
    Loading(fresh, fault)
    fresh.machine.advance(241)
    has(fresh.machine.dmesg(),
        rf"^INFO: task {COMM}:\d+ blocked for more than 120 seconds\.$",
        r"^      Tainted: G +O +6\.1\.0-klpfs #1$",
        '^"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.$',
        rf"^task:{COMM} +state:D stack:0 ", "^Call Trace:$", "faulty_init")  # fmt: skip
    fresh.machine.clear_log()
    fresh.machine.write("proc/sys/kernel/hung_task_timeout_secs", "0\n")
    fresh.machine.advance(1000)
    assert not fresh.machine.dmesg()


def test_hung_tasks_are_reported_ten_times(fresh: Faulty) -> None:
    Loading(fresh, "sleep_for_ever")
    fresh.machine.advance(20 * 120)
    assert sum(line.startswith("INFO: task ") for line in fresh.machine.dmesg()) == 10


CALLBACK = """
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/preempt.h>
static int never;
static int replacement(void) { return 0; }
static int pre_patch(struct klp_object *obj)
{
	preempt_disable();
	while (!READ_ONCE(never));
	return 0;
}
static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = replacement }, { } };
static struct klp_object objs[] = { { .funcs = funcs, .callbacks = { .pre_patch = pre_patch } }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
static int __init faulty_init(void) { return klp_enable_patch(&patch); }
static void __exit faulty_exit(void) { }
module_init(faulty_init);
module_exit(faulty_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"""


def test_a_callback_that_locks_up(klpfs_machine: Machine, ko: Ko) -> None:
    """The patch is refused, and klp_mutex is released."""
    fresh = Faulty(klpfs_machine, ko("faulty_000", CALLBACK).read_bytes())
    loading = Loading(fresh, "", "")
    klpfs_machine.advance(25)
    assert loading.end() == errno.EFAULT
    has(klpfs_machine.dmesg(), "soft lockup", "^RIP: 0010:pre_patch",
        "^livepatch: pre-patch callback failed for object 'vmlinux'$")  # fmt: skip
    klpfs_machine.insmod(ko("livepatch-sample"))
    assert klpfs_machine.read("proc/cmdline") == "this has been live patched\n"


# -- signals --------------------------------------------------------------------------------------


def reader(faulty: Faulty) -> subprocess.Popen[bytes]:
    """Return a ``cat`` that is blocked in read(2)."""
    process = subprocess.Popen(["cat", faulty.machine.path("proc/faulty")], stderr=subprocess.PIPE)
    path = faulty.machine.path(f"proc/{process.pid}")
    faulty.machine.wait_until(path.exists, "its task")
    return process


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        ("loop", signal.SIGINT),
        ("loop", signal.SIGKILL),
        ("loop_sleeping", signal.SIGTERM),
        ("loop_until_signal", signal.SIGINT),
        ("sleep_interruptibly", signal.SIGINT),
    ],
)
def test_a_reader_that_gets_a_signal(real_time: Faulty, fault: str, number: int) -> None:
    assert real_time.load(fault, "where=proc") == 0
    process = reader(real_time)
    process.send_signal(number)
    assert process.wait(SECONDS) == -number
    assert process.stderr is not None
    process.stderr.close()
    killed = [
        line
        for line in real_time.machine.dmesg()
        if " was killed because it ignored a signal in the kernel" in line
    ]
    assert len(killed) == (fault in ("loop", "loop_sleeping"))
    real_time.machine.rmmod(real_time.name)


def test_an_insmod_that_gets_a_signal(real_time: Faulty, tmp_path: Path) -> None:
    file = tmp_path / "faulty.ko"
    file.write_bytes(real_time.module())
    command = [
        sys.executable,
        "-P",
        "-m",
        "klpfs",
        "insmod",
        "-m",
        str(real_time.machine.mountpoint),
        str(file),
    ]
    process = subprocess.Popen([*command, "fault=loop_atomic"], stderr=subprocess.PIPE)
    initstate = real_time.machine.path(f"sys/module/{real_time.name}/initstate")
    real_time.machine.wait_until(initstate.exists)
    process.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL
    assert process.stderr is not None
    process.stderr.close()
    assert initstate.read_text() == "coming\n"


@pytest.mark.parametrize("fault", ["sleep_for_ever", "lock_twice"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_fatal_signal_ends_an_uninterruptible_sleep(
    real_time: Faulty, tmp_path: Path, fault: str, number: signal.Signals
) -> None:
    """In Linux, the process stays in D state."""
    machine = real_time.machine
    ko = tmp_path / "faulty.ko"
    ko.write_bytes(real_time.module())
    command = [sys.executable, "-m", "klpfs", "insmod", "-m", str(machine.mountpoint), str(ko)]
    process = subprocess.Popen([*command, f"fault={fault}"], stderr=subprocess.DEVNULL)
    initstate = machine.path(f"sys/module/{real_time.name}/initstate")
    machine.wait_until(initstate.exists)
    process.send_signal(number)
    assert process.wait(SECONDS) == -number
    machine.wait_until(
        lambda: any("was killed in an uninterruptible sleep" in x for x in machine.dmesg())
    )
    has(machine.dmesg(), r"^klpfs: \S+\[\d+\] was killed in an uninterruptible sleep; in Linux it would",
        r"^task:\S+ +state:D", "^Call Trace:$", "faulty_init")  # fmt: skip
    assert initstate.read_text() == "coming\n"
