# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest data never acts on the host: names and links in /proc, executable files, the view of klpfs run."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from stat import S_IFDIR, S_IFLNK

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import errno_of

from klpfs.fs.attributes import ProcFile
from klpfs.fs.nodes import Directory, File, Symlink
from klpfs.fs.procview import HOST, SHOWN, ProcView
from klpfs.machine.kernel.proc_tree import (
    KERNEL_NAMES,
    KLPFS_NAMES,
    PROCESS_LINKS,
    ProcEntry,
    link_target,
    name_to_int,
)
from klpfs.pytest_plugin import Machine
from klpfs.running import supervisor

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")

SECONDS = 60

ENTRIES = r"""
// Each parameter is one step: names are separated by spaces, and a link is NAME:TARGET.
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/string.h>
static char *drop = "", *subtree = "", *dirs = "", *files = "", *links = "", *undo = "";
module_param(drop, charp, 0444);
module_param(subtree, charp, 0444);
module_param(dirs, charp, 0444);
module_param(files, charp, 0444);
module_param(links, charp, 0444);
module_param(undo, charp, 0444);
static char words[512];

static int show(struct seq_file *m, void *v)
{
	seq_puts(m, "#!/bin/sh\necho the guest\n");
	return 0;
}
static const struct proc_ops ops = { .proc_flags = PROC_ENTRY_PERMANENT };

static void each(const char *list, void (*act)(char *word))
{
	char *rest = words, *word;

	strscpy(words, list, sizeof(words));
	while ((word = strsep(&rest, " ")) != NULL)
		if (*word)
			act(word);
}
static void said(const char *what, const char *name, bool done)
{
	pr_info("%s %s: %s\n", what, name, done ? "yes" : "no");
}
static void do_drop(char *name) { remove_proc_entry(name, NULL); }
static void do_subtree(char *name) { pr_info("subtree %s: %d\n", name, remove_proc_subtree(name, NULL)); }
static void do_dir(char *name) { said("dir", name, proc_mkdir(name, NULL)); }
static void do_file(char *name) { said("file", name, proc_create_single(name, 0777, NULL, show)); }
static void do_link(char *name)
{
	char *target = strsep(&name, ":");

	said("link", target, proc_symlink(target, NULL, name));
}
static void do_undo(char *name)
{
	struct proc_dir_entry *made = proc_mkdir(name, NULL);

	said("undo", name, made);
	proc_remove(made);
}
static int __init entries_init(void)
{
	each(drop, do_drop);
	each(subtree, do_subtree);
	each(undo, do_undo);
	each(dirs, do_dir);
	each(files, do_file);
	each(links, do_link);
	if (!strcmp(drop, "permanent"))
		proc_create("forever", 0, NULL, &ops);
	return 0;
}
module_init(entries_init);
MODULE_LICENSE("GPL");
"""

Do = Callable[..., list[str]]


@pytest.fixture
def machine(klpfs_machine: Machine) -> Machine:
    return klpfs_machine


@pytest.fixture
def do(machine: Machine, ko: Callable[..., Path]) -> Do:
    """Load the module with parameters, and return the new lines of the log."""
    data = ko("entries", ENTRIES).read_bytes()
    count = 0

    def load(**steps: str) -> list[str]:
        nonlocal count
        count += 1
        machine.clear_log()
        other = data.replace(b"name=entries\0", b"name=entrie%d\0" % count)
        words = [f"{step}={value}" for step, value in steps.items()]
        machine.insmod(other.replace(b"entries\0", b"entrie%d\0" % count), *words)
        return machine.dmesg()

    return load


def run(machine: Machine, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the view of the machine."""
    words = [sys.executable, "-P", "-m", "klpfs", "run", "-m", str(machine.mountpoint), *options]
    done = subprocess.run(
        [*words, "--", "sh", "-c", script], capture_output=True, text=True, timeout=SECONDS
    )
    if "klpfs run needs" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


# Names that are taken

TAKEN = sorted(KLPFS_NAMES | PROCESS_LINKS | SHOWN | {HOST, "kcore", "interrupts", "version", "fs"})


def test_a_taken_name_is_refused_as_linux_refuses_a_duplicate(do: Do, machine: Machine) -> None:
    before = sorted(os.listdir(machine.path("proc")))
    log = do(dirs=" ".join(TAKEN), files=" ".join(TAKEN))
    log += do(links=" ".join(f"{name}:/etc/passwd" for name in TAKEN))
    for kind in ("dir", "file", "link"):
        assert [line for line in log if line.startswith(f"{kind} ")] == [
            f"{kind} {name}: no" for name in TAKEN
        ]
    warnings = [line for line in log if line.startswith("proc_dir_entry")]
    assert warnings == [f"proc_dir_entry '/proc/{name}' already registered" for name in TAKEN] * 3
    assert any("at fs/proc/generic.c:400 proc_register" in line for line in log)
    assert sorted(os.listdir(machine.path("proc"))) == before


def test_process_ids_are_refused(do: Do) -> None:
    log = do(files="0 1 4194305 4294967279 01 4294967290 99999999999 1a")
    refused = [line for line in log if line.startswith("create '/proc/")]
    assert refused == [f"create '/proc/{n}' by hand" for n in ("0", "1", "4194305", "4294967279")]
    for name in ("01", "4294967290", "99999999999", "1a"):
        assert f"file {name}: yes" in log


@pytest.mark.parametrize(
    ("name", "number"),
    [("0", 0), ("7", 7), ("4294967279", 4294967279), ("4294967280", None), ("07", None),
     ("", None), ("٣", None), ("1x", None), ("9" * 5000, None)],
)  # fmt: skip
def test_name_to_int(name: str, number: int | None) -> None:
    assert name_to_int(name) == number


def test_names_below_a_directory_are_the_guests(do: Do, machine: Machine) -> None:
    do(dirs="mine mine/self mine/1", files="mine/sys mine/self/exe")
    assert machine.read("proc/mine/sys") == machine.read("proc/mine/self/exe")
    assert "name 'sys/mine'" in do(files="sys/mine")


def test_the_host_shows_nothing_that_the_guest_could_register() -> None:
    assert SHOWN <= KERNEL_NAMES | PROCESS_LINKS


# Removal


def test_entries_that_are_not_the_guests_cannot_be_removed(do: Do, machine: Machine) -> None:
    names = "sys modules kallsyms self 1 version sys/kernel"
    log = do(drop=names, subtree=names, undo="sys modules self")
    for name in ("sys", "modules", "kallsyms", "self", "1"):
        assert f"name '{name}'" in log
        assert f"subtree {name}: {-errno.ENOENT}" in log
    assert [line for line in log if line.startswith("undo")] == [
        "undo sys: no", "undo modules: no", "undo self: no",
    ]  # fmt: skip
    assert "removing permanent /proc entry 'version'" in log
    assert "removing permanent /proc entry '/proc/version'" in log
    assert f"subtree version: {-errno.EINVAL}" in log
    assert machine.read("proc/sys/kernel/ostype") == "Linux\n"
    assert machine.read("proc/modules").startswith("entrie1 ")
    assert machine.read("proc/version").startswith("Linux version 6.1.0-klpfs ")


def test_files_that_linux_marks_as_permanent(do: Do, machine: Machine) -> None:
    log = do(drop="cmdline filesystems version uptime meminfo loadavg stat")
    for name in ("cmdline", "filesystems"):
        assert not machine.path(f"proc/{name}").exists()
    for name in ("version", "uptime", "meminfo", "loadavg", "stat"):
        assert f"removing permanent /proc entry '{name}'" in log
        assert machine.read(f"proc/{name}")


def test_a_module_can_mark_its_entry_as_permanent(do: Do, machine: Machine) -> None:
    do(drop="permanent")
    assert "removing permanent /proc entry 'forever'" in do(drop="forever")
    assert machine.path("proc/forever").exists()


def test_a_name_that_the_kernel_removed_is_free_for_the_guest_only(
    do: Do, machine: Machine
) -> None:
    do(drop="cmdline filesystems")
    done = run(machine, "cat /proc/cmdline /proc/filesystems; echo x > /proc/cmdline; ls /proc")
    assert not {"cmdline", "filesystems"} & set(done.stdout.split())
    assert len(done.stderr.splitlines()) == 3
    assert "file cmdline: yes" in do(files="cmdline")
    assert run(machine, "cat /proc/cmdline").stdout == machine.read("proc/cmdline")


def test_a_directory_with_entries(do: Do, machine: Machine) -> None:
    do(dirs="full full/deep", files="full/deep/file")
    log = do(drop="full")
    assert (
        "remove_proc_entry: removing non-empty directory '/proc/full', leaking at least 'deep'"
        in log
    )
    assert not machine.path("proc/full").exists()
    assert "dir full: yes" in do(dirs="full", files="full/again")
    assert os.listdir(machine.path("proc/full")) == ["again"]
    assert "subtree full: 0" in do(subtree="full")
    assert not machine.path("proc/full").exists()


# Links

OUTSIDE = (
    "/etc/passwd", "/", "..", "../..", "../etc/passwd", "../../../../../../etc/passwd", "/proc/..",
    "//etc/passwd", "/proc/../etc/passwd", "self/root/etc/passwd", "/proc/self/root/etc/passwd",
    "./self/exe", "1/root/etc/passwd", "thread-self/root/etc/passwd", "mounts", "net/dev",
    ".host/sysrq-trigger", "../.host", "up/self/root/etc/passwd", "d/up/1/root/etc/passwd",
    "d/up/../etc/passwd", "loop", "nothing", "sys/kernel/tainted", "../machine/insmod",
)  # fmt: skip


def test_a_link_leads_to_no_place_outside(do: Do, machine: Machine) -> None:
    """Whatever readlink(2) fails for cannot be followed, with /proc mounted here or by klpfs run."""
    do(dirs="d", files="d/file", links="up:. d/up:.. loop:loop")
    for start in range(0, len(OUTSIDE), 8):
        some = OUTSIDE[start : start + 8]
        do(links=" ".join(f"l{start + i}:{target}" for i, target in enumerate(some)))
    names = [f"l{i}" for i in range(len(OUTSIDE))]
    for name, target in zip(names, OUTSIDE, strict=True):
        link = machine.path(f"proc/{name}")
        assert os.lstat(link).st_size == len(target)
        expected = "ELOOP" if target == "loop" else "ENOENT"
        assert errno_of(partial(os.readlink, link)) == expected, target
        assert errno_of(partial(os.stat, link)) == expected, target
    done = run(
        machine,
        f"cd /proc; for i in {' '.join(names)}; do [ -e $i ] && echo $i; done; ls -d l0; echo x > l0",
    )
    assert done.stdout == "l0\n"
    assert done.returncode


def test_a_link_to_an_entry_is_shown_as_a_path_to_it(do: Do, machine: Machine) -> None:
    do(dirs="d d/e", files="d/e/file", links="a:d/e/file d/b:../d/./e d/e/c:/proc/d/e/file d/x:..")
    do(links="f:d/x/d/b/c d/g:b/../../d/e/file h:d/x")
    expected = {
        "a": "d/e/file", "d/b": "e", "d/e/c": "file", "d/x": "..", "f": "d/e/file",
        "d/g": "e/file", "h": ".",
    }  # fmt: skip
    for name, target in expected.items():
        assert os.readlink(machine.path(f"proc/{name}")) == target
    assert machine.read("proc/f").endswith("the guest\n")
    assert run(machine, "cat /proc/f; readlink /proc/d/g").stdout.endswith("the guest\ne/file\n")
    do(subtree="d/e")
    assert errno_of(lambda: machine.read("proc/a")) == "ENOENT"
    do(dirs="d/e", files="d/e/file")
    assert machine.read("proc/a").endswith("the guest\n")


def test_the_log_tells_which_link_leads_outside(do: Do) -> None:
    log = do(dirs="d", links="a:/etc/passwd b:self/exe c:later d:d/../.. e:d/f")
    assert [line for line in log if line.startswith("klpfs: ")] == [
        f"klpfs: the link /proc/{name} cannot be followed: '{target}' is not an entry that the "
        "guest has registered in /proc"
        for name, target in [("a", "/etc/passwd"), ("b", "self/exe")]
    ]


NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), TARGETS | st.none(), st.booleans()),
                max_size=12))  # fmt: skip
def test_links_as_shown_never_leave_a_real_directory(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[list[str], list[str] | None, bool]],
) -> None:
    """Any tree of directories and links, written to a disk as the mount shows it."""
    root, links = ProcEntry("", S_IFDIR, 0), []
    for path, target, absolute in made:
        here = root
        for name in path[:-1]:
            here = here.children.get(name, here)
        if path[-1] in here.children or here.mode != S_IFDIR:
            continue
        entry = ProcEntry(path[-1], S_IFDIR if target is None else S_IFLNK, 0, here)
        if target is not None:
            entry.target = ("/proc/" if absolute else "") + "/".join(target)
            links.append(entry)
        here.children[entry.name] = entry
    top = tmp_path_factory.mktemp("tree")

    def write(entry: ProcEntry, at: Path) -> None:
        for child in entry.children.values():
            if child.mode == S_IFDIR:
                (at / child.name).mkdir()
                write(child, at / child.name)

    write(root, top)
    for link in links:
        try:
            resolved = link_target(link)
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.ELOOP)
            continue
        place = top.joinpath(*link.path)
        place.symlink_to(resolved)
        assert place.resolve(strict=True).is_relative_to(top)
        assert not place.resolve().is_symlink()


# Programs


def test_a_file_of_the_guest_cannot_be_executed(do: Do, machine: Machine) -> None:
    do(files="program", links="link:program")
    for name in ("program", "link"):
        with pytest.raises(PermissionError):
            subprocess.run([machine.path(f"proc/{name}")], check=False)
    done = run(machine, "/proc/program; echo $?; exec /proc/link")
    assert "the guest" not in done.stdout
    assert done.stdout == "126\n"
    assert done.returncode == 126


def test_the_mount_and_its_copies_hold_data_only(machine: Machine) -> None:
    safe = {"nosuid", "nodev", "noexec"}
    mountinfo = Path("/proc/self/mountinfo").read_text().splitlines()
    flags = {m[4]: set(m[5].split(",")) for m in map(str.split, mountinfo)}
    assert safe <= flags[str(machine.mountpoint)]
    lines = run(machine, "cat /proc/self/mountinfo").stdout.splitlines()
    ours = [line.split() for line in lines if " - fuse.klpfs " in line or " - tmpfs klpfs " in line]
    assert {line[4] for line in ours} >= {"/proc", "/sys", "/dev/kmsg", str(machine.mountpoint)}
    for line in ours:
        if line[4] in ("/proc", "/sys", "/dev/kmsg") or line[-2] == "klpfs" and "tmpfs" in line:
            assert safe <= set(line[5].split(",")), line


def test_programs_that_execute_themselves(do: Do, machine: Machine) -> None:
    """The busybox of Debian runs its applets through /proc/self/exe."""
    log = do(dirs="self", files="self/exe")
    assert "dir self: no" in log and "file self/exe: no" in log
    again = "exec -a {0} /proc/self/exe {1}"
    inner = again.format("bash", "-c 'readlink /proc/\\$\\$/exe; :'")
    done = run(machine, f'exec bash -c "{inner}"')
    assert done.stdout == f"{os.path.realpath('/bin/bash')}\n"
    if busybox := shutil.which("busybox"):
        inner = again.format("busybox", "echo again")
        done = run(machine, f"exec {busybox} sh -c '{inner}'")
        assert done.stdout == "again\n"


# The view


def test_the_host_s_names_are_an_explicit_list(machine: Machine) -> None:
    names = run(machine, "ls -a /proc").stdout.split()
    assert len(names) == len(set(names))
    here = set(os.listdir("/proc"))
    assert SHOWN & here <= set(names)
    guests = set(os.listdir(machine.path("proc")))
    others = {n for n in names if not n.isdecimal()} - guests - SHOWN - {".", "..", HOST}
    assert others == set()
    for name in ("kcore", "kmsg", "sysrq-trigger", "config.gz", "interrupts", "fs"):
        assert run(machine, f"[ -e /proc/{name} ] || echo none").stdout == "none\n"


def test_a_name_of_the_guest_s_kernel_never_becomes_the_host_s() -> None:
    guest = Directory(0o555)
    guest.add("cpuinfo", ProcFile())
    view = ProcView(guest, SHOWN - {"cpuinfo"})
    assert isinstance(view.lookup("cpuinfo"), File)
    guest.remove("cpuinfo")
    assert view.lookup("cpuinfo") is None
    assert "cpuinfo" not in set(view.entries())
    assert isinstance(view.lookup("self"), Symlink)


def test_a_directory_of_the_guest_is_not_merged_with_the_host_s(do: Do, machine: Machine) -> None:
    do(dirs="acpid acpid/x")
    assert run(machine, "ls /proc/acpid").stdout == "x\n"


def test_what_programs_need_of_the_host(machine: Machine) -> None:
    done = run(
        machine,
        "cd /proc; head -1 cpuinfo mounts net/dev self/status; readlink self mounts net; "
        "ls -d /proc/$$/fd; head -c 1 sys/kernel/pid_max; readlink -f self/root",
    )
    assert done.stderr == ""
    assert ".host/self\n.host/mounts\n.host/net\n" in done.stdout


# What the supervisor passes on

HOSTILE_UNAME = """
#include <linux/module.h>
#include <linux/livepatch.h>
#include <linux/string.h>
#include <linux/utsname.h>
#include <linux/uaccess.h>
#include <asm/ptrace.h>
static char *release = "../../x";
module_param(release, charp, 0644);
static asmlinkage long patched(const struct pt_regs *regs)
{
	struct new_utsname name = { .sysname = "Linux" };

	strscpy(name.release, release, sizeof(name.release));
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


def test_uname_returns_no_release_that_is_a_path(machine: Machine, ko: Callable[..., Path]) -> None:
    machine.insmod(ko("hostile-uname", HOSTILE_UNAME))
    for release in ("../../x", "..", ".", "-b", "a\x1b[31m", ""):
        machine.write("sys/module/hostile_uname/parameters/release", release)
        done = run(machine, "uname -r")
        assert (done.stdout, done.returncode != 0) == ("", True), release
    machine.write("sys/module/hostile_uname/parameters/release", "6.1.0-x")
    assert run(machine, "uname -r").stdout == "6.1.0-x\n"


@pytest.mark.parametrize("number", [0, 17, 18, 19, 64, 1 << 40, -5])
def test_a_task_that_dies_kills_its_process(number: int) -> None:
    """do_exit() takes any number, and not each is a signal that ends a process."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        caller = supervisor._Caller.__new__(supervisor._Caller)
        caller._pidfd = os.pidfd_open(process.pid)
        caller._status = {"SigBlk": "0", "SigIgn": "0", "SigCgt": "0"}
        caller.kill(number)
        os.close(caller._pidfd)
        assert process.wait(SECONDS) == -9
