# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs run``: unmodified programs in the view of a machine."""

from __future__ import annotations

import errno
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from klpfs.mounting.mounts import find_mounts, mounts
from klpfs.pytest_plugin import Machine
from klpfs.running import namespace

SECONDS = 60
REPOSITORY = Path(__file__).parent.parent
RELEASE = "6.1.0-klpfs"

OOPS = """
#include <linux/module.h>
static int *nowhere = (int *)8;
static int __init oops_init(void) { WRITE_ONCE(*nowhere, 1); return 0; }
static void __exit oops_exit(void) { }
module_init(oops_init);
module_exit(oops_exit);
MODULE_LICENSE("GPL");
"""

SLOW = """
#include <linux/module.h>
#include <linux/delay.h>
static int ms;
module_param(ms, int, 0444);
static int __init slow_init(void) { pr_info("slow: in\\n"); msleep(ms); pr_info("slow: out\\n"); return 0; }
static void __exit slow_exit(void) { }
module_init(slow_init);
module_exit(slow_exit);
MODULE_LICENSE("GPL");
"""

UNAME = """
#include <linux/module.h>
#include <linux/livepatch.h>
#include <linux/string.h>
#include <linux/utsname.h>
#include <linux/uaccess.h>
#include <asm/ptrace.h>
static asmlinkage long patched(const struct pt_regs *regs)
{
	struct new_utsname name = { .sysname = "Linux", .release = "9.9.9-patched", .machine = "x86_64" };

	return copy_to_user((void __user *)regs->di, &name, sizeof(name)) ? -EFAULT : 0;
}
static struct klp_func funcs[] = { { .old_name = "__x64_sys_newuname", .new_func = patched }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
static int __init uname_init(void) { return klp_enable_patch(&patch); }
static void __exit uname_exit(void) { }
module_init(uname_init);
module_exit(uname_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"""

RAW_CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    return -ctypes.get_errno() if result < 0 else result
INIT, DELETE, SYSLOG, UNAME, FINIT = 175, 176, 103, 63, 313
"""


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*words: str | Path, machine: Machine | None = None) -> list[str]:
    on = ["-m", str(machine.mountpoint)] if machine else ["--kernel", "embedded"]
    return [sys.executable, "-P", "-m", "klpfs", "run", *on, *map(str, words)]


@pytest.fixture(scope="module")
def real_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine in real time, as virtual time would not wake sleeping modules."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.umount()


@pytest.fixture
def run(real_time: Machine) -> Run:
    """Run a shell script in the view of the machine, with options of ``klpfs run``."""
    probe = subprocess.run(command("true", machine=real_time), capture_output=True, text=True)
    if "klpfs run needs" in probe.stderr:  # a file of the host
        pytest.skip(probe.stderr.strip())

    def in_view(script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        words = command(*options, "--", "bash", "-c", textwrap.dedent(script), machine=real_time)
        return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)

    return in_view


@pytest.fixture
def python(run: Run) -> Callable[[str], str]:
    """Run Python in the view, with ``call(NUMBER, ...)`` for system calls; return its output."""

    def in_view(script: str) -> str:
        text = RAW_CALLS + textwrap.dedent(script)
        done = run(f"exec {sys.executable} - <<'END'\n{text}\nEND")
        assert not done.stderr
        return done.stdout

    return in_view


@pytest.fixture
def modules(tmp_path: Path, ko: Callable[..., Path]) -> Path:
    """A directory with modules in it."""
    directory = tmp_path / "modules"
    directory.mkdir()
    for name, text in (("slow", SLOW), ("oops", OOPS), ("uname_patch", UNAME)):
        shutil.copy(ko(name, text), directory)
    shutil.copy(ko("livepatch-sample"), directory)
    return directory


def needs(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            pytest.skip(f"there is no {tool}")


# The view


def test_a_program_sees_the_guest(real_time: Machine, run: Run) -> None:
    done = run("uname -sr; cat /proc/cmdline /proc/modules; ls -d /sys/*; ls /lib/modules; "
               "cat /proc/sys/kernel/osrelease; echo $KLPFS_MOUNT")  # fmt: skip
    assert done.stdout.splitlines() == [
        f"Linux {RELEASE}",
        real_time.read("proc/cmdline").rstrip("\n"),
        "/sys/kernel",
        "/sys/module",
        RELEASE,
        RELEASE,
        str(real_time.mountpoint),
    ]
    assert done.stderr == ""


def test_processes_are_the_hosts(run: Run) -> None:
    done = run(
        """
        cat /proc/self/comm; readlink -f /proc/$$/exe
        [ $(readlink /proc/self/fd/1 | cut -c1-4) = pipe ] && echo fd
        echo from a pipe | cat <(cat)
        cat /proc/4194305/comm; ls /proc | grep -cx $$
        """
    )
    assert done.stdout.splitlines() == [
        "cat", os.path.realpath("/bin/bash"), "fd", "from a pipe", "kthreadd", "1",
    ]  # fmt: skip


def test_nothing_of_it_is_seen_outside(run: Run) -> None:
    places = {"/proc", "/sys", "/dev/kmsg", "/lib/modules", "/usr/lib/modules", "/usr/lib"}
    before = [mount for mount in mounts() if mount.path in places]
    assert run("cat /proc/mounts").stdout.count(" /sys fuse.klpfs ") == 1
    assert [mount for mount in mounts() if mount.path in places] == before


def test_the_host_is_not_touched(run: Run) -> None:
    done = run(
        """
        echo 5 > /proc/sys/kernel/pid_max
        echo h > /proc/.host/sysrq-trigger
        echo 5 > /proc/.host/sys/kernel/pid_max
        """
    )
    assert done.returncode
    assert len(done.stderr.splitlines()) == 3


def test_sysctl(run: Run) -> None:
    needs("sysctl")
    done = run(
        """
        PATH=$PATH:/usr/sbin:/sbin
        sysctl -n kernel.ftrace_enabled; sysctl -w kernel.ftrace_enabled=0
        cat /proc/sys/kernel/ftrace_enabled
        sysctl -q kernel.ftrace_enabled=1; sysctl -n kernel.pid_max
        """
    )
    pid_max = Path("/proc/sys/kernel/pid_max").read_text()
    assert done.stdout == f"1\nkernel.ftrace_enabled = 0\n0\n{pid_max}"


# Modules


def test_lib_modules_is_indexed_for_modprobe(run: Run, modules: Path) -> None:
    done = run("cd /lib/modules/$(uname -r); ls -d extra/* modules.*", "--modules", modules)
    names = done.stdout.split()
    assert {"modules.order", "modules.builtin", "modules.dep", "extra/slow.ko"} <= set(names)
    assert all(name.startswith(("extra/", "modules.")) for name in names)


def test_stock_tools_load_and_unload_modules(run: Run, modules: Path) -> None:
    needs("modprobe", "depmod")
    done = run(
        """
        PATH=$PATH:/usr/sbin:/sbin
        modinfo -F vermagic slow; modprobe slow ms=7; cat /sys/module/slow/parameters/ms
        lsmod | tail -n 1 | tr -s ' '; modprobe slow; modprobe -r slow; cat /proc/modules
        insmod "$0" 2>/dev/null; insmod /etc/passwd; rmmod slow; modprobe --force-vermagic slow && rmmod slow
        """,
        "--modules",
        modules,
    )
    assert done.stdout.splitlines() == [
        f"{RELEASE} preempt mod_unload ",
        "7",
        "slow 16384 0",
    ]
    assert done.stderr.splitlines() == [
        "insmod: ERROR: could not insert module /etc/passwd: Invalid module format",
        "rmmod: ERROR: Module slow is not currently loaded",
    ]
    assert done.returncode == 0


def test_a_live_patch(run: Run, modules: Path) -> None:
    needs("modprobe", "depmod")
    done = run(
        """
        PATH=$PATH:/usr/sbin:/sbin
        modprobe livepatch-sample; cat /proc/cmdline
        cd /sys/kernel/livepatch/livepatch_sample; echo 0 > enabled; cd /
        until rmmod livepatch_sample 2>/dev/null; do sleep 0.05; done; cut -c1-10 /proc/cmdline
        """,
        "--modules",
        modules,
    )
    assert done.stdout == "this has been live patched\nBOOT_IMAGE\n"


def test_a_live_patch_of_uname_shows(run: Run, modules: Path) -> None:
    needs("insmod")
    done = run(
        f"""
        PATH=$PATH:/usr/sbin:/sbin
        uname -r; insmod {modules}/uname_patch.ko; uname -r
        echo 0 > /sys/kernel/livepatch/uname_patch/enabled
        until rmmod uname_patch 2>/dev/null; do sleep 0.05; done; uname -r
        """
    )
    assert done.stdout.split() == [RELEASE, "9.9.9-patched", RELEASE]


def test_the_loader_of_a_module_that_oopses_is_killed(ko: Callable[..., Path], run: Run) -> None:
    needs("insmod")
    module = ko("oops", OOPS)
    done = run(f"PATH=$PATH:/usr/sbin:/sbin; insmod {module}; echo $?; cat /proc/modules; dmesg")
    assert done.stdout.splitlines()[0] == str(128 + signal.SIGKILL)
    assert done.stdout.splitlines()[1].startswith("oops ")
    assert " Loading " in done.stdout
    assert "Comm: insmod" in done.stdout


def test_calls_do_not_wait_for_one_that_sleeps(run: Run, ko: Callable[..., Path]) -> None:
    needs("insmod")
    done = run(
        f"""
        PATH=$PATH:/usr/sbin:/sbin
        (insmod {ko("slow", SLOW)} ms=1500; echo loaded) &
        until [ -e /sys/module/slow ]; do sleep 0.02; done
        uname -r; cat /sys/module/slow/initstate; wait; rmmod slow
        """
    )
    assert done.stdout.split() == [RELEASE, "coming", "loaded"]


def test_a_signal_that_the_caller_handles_does_not_load_twice(
    python: Callable[[str], str], ko: Callable[..., Path]
) -> None:
    output = python(
        f"""
        import signal, time
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with open({str(ko("slow", SLOW))!r}, "rb") as file:
            print(call(FINIT, file.fileno(), b"ms=400", 0))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(call(DELETE, b"slow", os.O_NONBLOCK))
        """
    )
    assert output.split() == ["0", "0"]


def test_init_module_and_its_errors(python: Callable[[str], str], ko: Callable[..., Path]) -> None:
    output = python(
        f"""
        data = open({str(ko("slow", SLOW))!r}, "rb").read()
        print(call(INIT, data, len(data), b"ms=3"))
        print(open("/sys/module/slow/parameters/ms").read().strip())
        print(call(INIT, data, len(data), b""))
        print(call(DELETE, b"slow", os.O_NONBLOCK), call(DELETE, b"slow", os.O_NONBLOCK))
        print(call(INIT, data, len(data), b"ms=x"))
        print(call(INIT, data, 63, b""), call(INIT, data[:200], 200, b""))
        print(call(INIT, None, len(data), b""), call(INIT, data, len(data), None))
        print(call(DELETE, None, 0))
        """
    )
    assert [int(word) for word in output.split()] == [
        0, 3, -errno.EEXIST, 0, -errno.ENOENT, -errno.EINVAL, -errno.ENOEXEC, -errno.ENOEXEC,
        -errno.EFAULT, -errno.EFAULT, -errno.EFAULT,
    ]  # fmt: skip


def test_finit_module_and_its_errors(python: Callable[[str], str], ko: Callable[..., Path]) -> None:
    output = python(
        f"""
        path = {str(ko("slow", SLOW))!r}
        reading, other, null = os.open(path, os.O_RDONLY), os.open(path, os.O_PATH), os.open("/dev/null", 0)
        os.lseek(reading, 100, 0)
        print(call(FINIT, reading, b"", 0), call(DELETE, b"slow", os.O_NONBLOCK | os.O_TRUNC))
        print(call(FINIT, reading, b"", 3), call(DELETE, b"slow", os.O_NONBLOCK))
        print(call(FINIT, reading, b"", 8), call(FINIT, reading, b"", 4))
        print(call(FINIT, 99, b"", 0), call(FINIT, -1, b"", 0), call(FINIT, other, b"", 0))
        print(call(FINIT, null, b"", 0))
        """
    )
    assert [int(word) for word in output.split()] == [
        0, 0, 0, 0, -errno.EINVAL, -errno.EOPNOTSUPP, -errno.EBADF, -errno.EBADF, -errno.EBADF,
        -errno.EINVAL,
    ]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_may_not(python: Callable[[str], str], ko: Callable[..., Path]) -> None:
    output = python(
        f"""
        data = open({str(ko("slow", SLOW))!r}, "rb").read()
        os.setuid(65534)
        print(call(INIT, data, len(data), b""), call(DELETE, b"slow", 0), call(SYSLOG, 5, 0, 0))
        print(os.uname().release)
        """
    )
    refused = str(-errno.EPERM)
    assert output.split() == [refused, refused, refused, RELEASE]


# The log


def test_dmesg(real_time: Machine, run: Run) -> None:
    done = run(
        """
        dmesg -C; echo one > /dev/kmsg; dmesg -t; dmesg -St; dmesg -C; echo two > /dev/kmsg; dmesg -ct
        dmesg; echo three > /dev/kmsg
        timeout 0.5 dmesg -Wt & sleep 0.25; echo four > /dev/kmsg; wait
        timeout 0.5 dmesg -wt
        """
    )
    assert done.stdout.splitlines()[:6] == ["one", "one", "two", "four", "three", "four"]
    assert done.stdout.splitlines()[6:] == []


def test_syslog(python: Callable[[str], str]) -> None:
    output = python(
        """
        buffer = ctypes.create_string_buffer(4096)
        call(SYSLOG, 5, None, 0)
        os.write(os.open("/dev/kmsg", os.O_WRONLY), b"<3>a line\\n")
        size = call(SYSLOG, 3, buffer, 4096)
        print(buffer.raw[:3].decode(), buffer.raw[:size].decode().split("] ")[1].strip())
        print(call(SYSLOG, 3, buffer, 4), call(SYSLOG, 3, None, 4), call(SYSLOG, 3, buffer, -1))
        print(call(SYSLOG, 10, None, 0), call(SYSLOG, 8, None, 9))
        print(call(SYSLOG, 8, None, 4), call(SYSLOG, 11, None, 0))
        unread = call(SYSLOG, 9, None, 0)
        while unread:
            unread -= call(SYSLOG, 2, buffer, 4096)
        print(unread, call(SYSLOG, 9, None, 0))
        print(call(SYSLOG, 3, 1, 4096))
        """
    )
    lines = output.splitlines()
    assert lines[0] == "<11 a line"  # facility user, as for all writes to /dev/kmsg
    assert lines[1].split() == ["0", str(-errno.EINVAL), str(-errno.EINVAL)]
    assert lines[2].split() == [str(1 << 20), str(-errno.EINVAL)]
    assert lines[3].split() == ["0", str(-errno.EINVAL)]
    assert lines[4] == "0 0"
    assert lines[5] == str(-errno.EFAULT)


def test_seeking_in_other_files_is_the_hosts(python: Callable[[str], str], tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 20)
    output = python(
        f"""
        file = os.open({str(sparse)!r}, os.O_RDONLY)
        print(os.lseek(file, 0, os.SEEK_END), os.lseek(file, -1, os.SEEK_END))
        try:
            print(os.lseek(file, 0, os.SEEK_DATA))
        except OSError as error:
            print(error.errno)
        """
    )
    assert output.split() == [str(1 << 20), str((1 << 20) - 1), str(errno.ENXIO)]


# The process


@pytest.mark.parametrize("status", [0, 1, 77])
def test_the_exit_status_is_the_programs(run: Run, status: int) -> None:
    assert run(f"exit {status}").returncode == status


def test_a_signal_that_ends_the_program_ends_the_command(run: Run) -> None:
    assert run("kill -TERM $$").returncode == -signal.SIGTERM


def test_no_such_command(real_time: Machine, run: Run) -> None:
    done = subprocess.run(
        command("no-such-command", machine=real_time), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (127, "klpfs: no-such-command: command not found\n")


def test_one_inside_another_is_refused_in_a_sentence(run: Run) -> None:
    done = run(f"cd {REPOSITORY}; {sys.executable} -P -m klpfs run true")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this process already has a seccomp supervisor")
    assert len(done.stderr.splitlines()) == 1


def test_an_interactive_shell(real_time: Machine, run: Run) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(PS1="ready> ", TERM="dumb")
        words = command("bash", "--norc", "--noprofile", "-i", machine=real_time)
        os.execv(words[0], words)
    said = ""

    def expect(text: str) -> None:
        nonlocal said
        end = time.monotonic() + SECONDS
        while text not in said:
            assert select.select([terminal], [], [], end - time.monotonic())[0], said
            said += os.read(terminal, 4096).decode()
        said = said.partition(text)[2]

    def say(keys: str) -> None:
        os.write(terminal, keys.encode())

    expect("ready> ")
    say("uname -r\n")
    expect(f"\n{RELEASE}\r\n")
    expect("ready> ")
    say("sh -c 'echo g${x}o; exec sleep 100'\n")
    expect("\ngo\r\n")
    say("\x1a")  # ^Z
    expect("Stopped")
    expect("ready> ")
    say("fg\n")
    expect("sleep 100")
    time.sleep(0.3)  # the shell prints this before it continues the job
    say("\x03")  # ^C
    expect("ready> ")
    say("echo st${x}atus $?\n")
    expect(f"status {128 + signal.SIGINT}")
    expect("ready> ")
    say("exit 9\n")
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 9


# A private machine


def test_a_machine_of_its_own_ends_with_the_program(run: Run, tmp_path: Path) -> None:
    late = tmp_path / "late"
    script = f"""
        uname -r; echo $KLPFS_MOUNT
        (until [ -e {late}.go ]; do sleep 0.05; done
         cat /proc/cmdline > {late}; uname -r >> {late}) >/dev/null 2>&1 &
    """
    done = subprocess.run(
        command("--", "bash", "-c", script), capture_output=True, text=True, timeout=SECONDS
    )
    release, mountpoint = done.stdout.split()
    assert release == RELEASE
    try:
        assert Path(mountpoint).exists()
        assert Path(mountpoint) not in find_mounts()  # not visible on the host
    finally:
        Path(f"{late}.go").touch()
    end = time.monotonic() + SECONDS
    while Path(mountpoint).exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(mountpoint).exists()
    assert late.read_text().startswith("BOOT_IMAGE")
    assert late.read_text().endswith(f"{RELEASE}\n")


def test_killed_it_leaves_nothing_behind(run: Run) -> None:
    words = command("--", "bash", "-c", "echo $KLPFS_MOUNT; exec sleep 1000")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        mountpoint = Path(process.stdout.readline().strip())
        process.kill()
    end = time.monotonic() + SECONDS
    while mountpoint.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not mountpoint.exists()
    assert mountpoint not in find_mounts()


# Parts


def test_dependencies_without_depmod(ko: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "junk.ko").write_text("no module")
    shutil.copy(ko("slow", SLOW), tmp_path)
    assert namespace.dependencies(sorted(tmp_path.iterdir())) == "extra/slow.ko:\n"


def test_a_process_whose_read_or_write_oopses_is_killed(run: Run, ko: Callable[..., Path]) -> None:
    """A page fault kills with SIGKILL, any other Oops with SIGSEGV (``page_fault_oops``, ``oops_end``)."""
    needs("insmod")
    module = ko("faulty_000")
    done = run(
        "PATH=$PATH:/usr/sbin:/sbin\n"
        f"insmod {module} fault=read_null where=proc; cat /proc/faulty; echo $?; cat < /proc/faulty; echo $?;"
        "exec 5< /proc/faulty; cat <&5; echo $?"
    )
    assert done.stdout.split() == [str(128 + signal.SIGKILL)] * 3
