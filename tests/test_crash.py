# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that are killed while they use a machine, and daemons that are killed."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import daemon_of, eventually, gone, is_blocked, opened, process

from klpfs import control
from klpfs.mounting import mounts
from klpfs.pytest_plugin import Machine

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

Mount = Callable[..., Machine]
Ko = Callable[..., Path]

SLOW = """// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/delay.h>
#include <linux/module.h>
static int slow_init(void)
{
	pr_info("slow: init begins\\n");
	msleep(10000);
	pr_info("slow: init ends\\n");
	return 0;
}
static void slow_exit(void)
{
	pr_info("slow: exit begins\\n");
	msleep(10000);
	pr_info("slow: exit ends\\n");
}
module_init(slow_init);
module_exit(slow_exit);
MODULE_LICENSE("GPL");
"""

SLOW_PATCH = """// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/delay.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
static int new_cmdline(struct seq_file *m, void *v)
{
	seq_printf(m, "patched\\n");
	return 0;
}
static void pre_unpatch(struct klp_object *obj)
{
	pr_info("slow_patch: pre_unpatch begins\\n");
	msleep(10000);
	pr_info("slow_patch: pre_unpatch ends\\n");
}
static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = new_cmdline }, { }
};
static struct klp_object objs[] = {
	{ .funcs = funcs, .callbacks = { .pre_unpatch = pre_unpatch } }, { }
};
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
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


def klpfs(machine: Machine, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "klpfs", "-m", str(machine.mountpoint), *arguments)


def shell(machine: Machine, script: str) -> tuple[str, ...]:
    return ("sh", "-c", f"cd '{machine.mountpoint}' && {script}")


def says(machine: Machine, line: str) -> None:
    machine.wait_until(lambda: line in machine.dmesg(), f"the line {line!r}")


class TestAProcessIsKilled:
    """A process in an uninterruptible system call dies when the call is over."""

    def test_in_insmod(self, klpfs_machine: Machine, ko: Ko) -> None:
        machine = klpfs_machine
        with process(*klpfs(machine, "insmod", str(ko("slow", SLOW)))) as insmod:
            says(machine, "slow: init begins")
            insmod.kill()
            assert machine.read("sys/module/slow/initstate") == "coming\n"
            assert is_blocked(insmod)
            machine.advance(11)
            assert insmod.wait(5) == -signal.SIGKILL
        assert machine.dmesg()[-1] == "slow: init ends"
        assert machine.read("sys/module/slow/initstate") == "live\n"

    def test_in_rmmod(self, klpfs_machine: Machine, ko: Ko) -> None:
        machine = klpfs_machine
        with process(*klpfs(machine, "insmod", str(ko("slow", SLOW)))) as insmod:
            says(machine, "slow: init begins")
            machine.advance(11)
            assert insmod.wait(5) == 0
        with process(*klpfs(machine, "rmmod", "slow")) as rmmod:
            says(machine, "slow: exit begins")
            rmmod.kill()
            machine.advance(11)
            assert rmmod.wait(5) == -signal.SIGKILL
        assert machine.dmesg()[-1] == "slow: exit ends"
        assert not machine.path("sys/module/slow").exists()

    def test_in_a_write_to_enabled(self, klpfs_machine: Machine, ko: Ko) -> None:
        machine = klpfs_machine
        machine.insmod(ko("slow_patch", SLOW_PATCH))
        assert machine.read("proc/cmdline") == "patched\n"
        enabled = "sys/kernel/livepatch/slow_patch/enabled"
        with process(*shell(machine, f"echo 0 > {enabled}")) as echo:
            says(machine, "slow_patch: pre_unpatch begins")
            echo.kill()
            assert machine.read("proc/cmdline") == "patched\n"
            machine.advance(11)
            assert echo.wait(5) == -signal.SIGKILL
        machine.wait_until_gone("sys/kernel/livepatch/slow_patch")
        assert "patched" not in machine.read("proc/cmdline")
        machine.rmmod("slow_patch")

    def test_before_the_whole_module_was_written(self, klpfs_machine: Machine, ko: Ko) -> None:
        machine = klpfs_machine
        allocations = machine.read("machine/allocations")
        code = (
            "import os, sys, time\n"
            "module = open(sys.argv[1], 'rb').read(); file = os.open(sys.argv[2], os.O_WRONLY)\n"
            "os.write(file, module[:len(module) // 2]); print(flush=True); time.sleep(60)"
        )
        paths = str(ko("slow", SLOW)), str(machine.path("machine/insmod"))
        with process(sys.executable, "-c", code, *paths) as upload:
            assert upload.stdout is not None
            upload.stdout.readline()
            upload.kill()
            assert upload.wait(5) == -signal.SIGKILL
        assert machine.read("proc/modules") == ""
        assert machine.read("machine/allocations") == allocations

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    def test_in_a_blocking_read_of_the_log(
        self, klpfs_machine: Machine, number: signal.Signals
    ) -> None:
        machine = klpfs_machine
        with process("cat", str(machine.path("dev/kmsg"))) as cat:
            assert eventually(lambda: is_blocked(cat))
            cat.send_signal(number)
            assert cat.wait(5) == -number
        machine.write("dev/kmsg", "after that\n")
        assert machine.dmesg()[-1] == "after that"

    def test_in_a_poll_of_the_log(self, klpfs_machine: Machine) -> None:
        machine = klpfs_machine
        code = (
            "import os, select, sys\n"
            "log = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)\n"
            "try:\n"
            "    while os.read(log, 8192): pass\n"
            "except BlockingIOError: pass\n"
            "poll = select.poll(); poll.register(log, select.POLLIN); print(flush=True)\n"
            "poll.poll()"
        )
        with process(sys.executable, "-c", code, str(machine.path("dev/kmsg"))) as poll:
            assert poll.stdout is not None
            poll.stdout.readline()
            poll.kill()
            assert poll.wait(5) == -signal.SIGKILL
        machine.write("dev/kmsg", "after that\n")
        assert machine.dmesg()[-1] == "after that"


class TestTheDaemonIsKilled:
    def test_clients_see_that_and_the_place_can_be_used_again(
        self, klpfs_mount: Mount, ko: Ko
    ) -> None:
        machine = klpfs_mount()
        place = machine.mountpoint
        machine.insmod(ko("slow_patch", SLOW_PATCH))
        killed = daemon_of(place)
        name = socket_of(place)
        with (
            opened(machine.path("sys/kernel/livepatch/slow_patch/enabled")) as file,
            process("cat", str(machine.path("dev/kmsg"))) as cat,
            process(
                "sh", "-c", "read line; cat proc/cmdline", cwd=place, stdin=subprocess.PIPE
            ) as sh,
        ):
            assert eventually(lambda: is_blocked(cat))
            os.kill(killed, signal.SIGKILL)
            assert cat.wait(5) == 1
            assert cat.stderr is not None
            assert re.search("not connected|connection abort", cat.stderr.read())
            with pytest.raises(OSError) as caught:
                os.read(file, 10)
            assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
            assert "not connected" in sh.communicate("\n", timeout=5)[1]
        with pytest.raises(OSError) as caught:
            os.listdir(place)
        assert caught.value.errno == errno.ENOTCONN

        refused = run("mount", str(place))
        assert refused.returncode == 1
        assert f"klpfs umount {place}" in refused.stderr
        refused = run("-m", str(place), "lsmod")
        assert refused.returncode == 1
        assert "no machine is mounted" in refused.stderr

        assert run("umount", str(place)).returncode == 0
        assert mounts.mount_at(str(place)) is None
        assert not is_listening(name)
        assert os.listdir(place) == []
        assert eventually(lambda: gone(killed))

        assert run("mount", str(place)).returncode == 0
        assert machine.read("proc/modules") == ""
        assert daemon_of(place) != killed

    def test_with_files_open_until_after_the_unmount(self, klpfs_mount: Mount) -> None:
        machine = klpfs_mount()
        place = machine.mountpoint
        with opened(machine.path("proc/cmdline")):
            os.kill(daemon_of(place), signal.SIGKILL)
            assert run("umount", "--lazy", str(place)).returncode == 0
            assert mounts.mount_at(str(place)) is None
            assert run("mount", str(place)).returncode == 0
            assert "BOOT_IMAGE" in machine.read("proc/cmdline")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
class TestTheDaemonIsToldToEnd:
    def test_with_files_open(self, klpfs_mount: Mount, number: signal.Signals) -> None:
        machine = klpfs_mount()
        ended, name = daemon_of(machine.mountpoint), socket_of(machine.mountpoint)
        with (
            opened(machine.path("proc/cmdline")) as file,
            process("cat", str(machine.path("dev/kmsg"))) as cat,
        ):
            assert eventually(lambda: is_blocked(cat))
            os.kill(ended, number)
            assert eventually(lambda: gone(ended))
            assert mounts.mount_at(str(machine.mountpoint)) is None
            assert not is_listening(name)
            assert cat.wait(5) == 1
            with pytest.raises(OSError):
                os.read(file, 10)

    def test_with_a_task_that_sleeps_in_the_guest(
        self, klpfs_mount: Mount, ko: Ko, number: signal.Signals
    ) -> None:
        machine = klpfs_mount("--virtual-time")
        ended = daemon_of(machine.mountpoint)
        with process(*klpfs(machine, "insmod", str(ko("slow", SLOW)))) as insmod:
            says(machine, "slow: init begins")
            os.kill(ended, number)
            assert eventually(lambda: gone(ended))
            assert mounts.mount_at(str(machine.mountpoint)) is None
            assert insmod.wait(5) == 1

    def test_while_it_is_used(self, klpfs_mount: Mount, ko: Ko, number: signal.Signals) -> None:
        machine = klpfs_mount()
        ended = daemon_of(machine.mountpoint)
        script = "while cat proc/meminfo sys/kernel/livepatch/*/enabled proc/kallsyms; do :; done"
        with (
            process(*shell(machine, f"{script} > /dev/null")) as one,
            process(*shell(machine, f"{script} > /dev/null")) as two,
        ):
            machine.insmod(ko("slow_patch", SLOW_PATCH))
            os.kill(ended, number)
            assert eventually(lambda: gone(ended))
            assert [one.wait(5), two.wait(5)] == [0, 0]  # of the loop
        assert mounts.mount_at(str(machine.mountpoint)) is None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "klpfs", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def socket_of(mountpoint: Path) -> str:
    """Return the socket name of a daemon, as in /proc/net/unix."""
    mount = mounts.mount_at(str(mountpoint))
    assert mount is not None
    return "@" + mounts.socket_name(mount)[1:].decode()


def is_listening(name: str) -> bool:
    return any(line.split()[-1] == name for line in Path("/proc/net/unix").read_text().splitlines())


def test_nothing_of_a_dead_machine_confuses_those_that_live(klpfs_mount: Mount) -> None:
    dead, alive = klpfs_mount(), klpfs_mount()
    os.kill(daemon_of(dead.mountpoint), signal.SIGKILL)
    assert eventually(lambda: control.machines().count(dead.mountpoint) == 0)
    assert alive.mountpoint in control.machines()
    assert alive.read("proc/modules") == ""
