# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest text on a terminal: nothing in it is executed, hidden or taken for markup."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klpfs import control
from klpfs.checking.report import Call, Report, Verdict, print_table
from klpfs.mounting.daemon import _LogFormatter
from klpfs.pytest_plugin import Machine
from klpfs.terminal import LINES, LOG, printable

SECONDS = 60
EVIL = "\x1b]0;title\x07\x1b[31m\u202e\x9b2J\x7f\r[link=http://x]a[/link] :warning:"
SHOWN = r"\x1b]0;title\x07\x1b[31m\xe2\x80\xae\xc2\x9b2J\x7f\x0d[link=http://x]a[/link] :warning:"


def klpfs(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "klpfs", *map(str, arguments)],
        capture_output=True, timeout=SECONDS, check=False, env={**os.environ, **environment},
    )  # fmt: skip


# The function


def test_what_is_printable_stays() -> None:
    for text in ("", "plain", "größe 漢字 ñ", "a\u3000b\xa0c", r"\x1b \ [bold]"):
        assert printable(text) == text


def test_what_is_not_is_shown_as_bytes() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("a\udcff\udc80") == r"a\xff\x80"
    assert printable("\ud800") == r"\xed\xa0\x80"
    assert printable("a\tb\nc\rd", LINES) == "a\tb\nc\\x0dd"
    assert printable("a\tb\nc\v\f\rd\0", LOG) == "a\tb\nc\v\f\rd\\x00"


@given(st.text(st.characters()))
def test_the_result_is_always_printable(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert all(c.isprintable() or c.isspace() for c in shown)
    assert not set(shown) & set("\n\t\r\v\f\x85\u2028\u2029")


# Output of a machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("terminal"))
    yield machine
    machine.umount()


def log(machine: Machine, data: bytes) -> None:
    (machine.path("dev/kmsg")).write_bytes(data)


def test_dmesg_escapes_as_util_linux_does(machine: Machine) -> None:
    machine.clear_log()
    log(machine, EVIL.encode() + b"\xff\xc3(\n")
    expected = SHOWN.replace(r"\x0d", "\r") + r"\xff\xc3("
    done = klpfs("dmesg", "-m", machine.mountpoint)
    assert done.stdout.decode().rstrip("\n").endswith(f"] {expected}")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "klpfs", "dmesg", "-w", "-m", machine.mountpoint],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line.decode().rstrip("\n").endswith(f"] {expected}")


def test_dmesg_and_that_of_util_linux_agree(machine: Machine) -> None:
    """They differ only for invisible characters, such as U+202E, which util-linux prints."""
    if not shutil.which("dmesg"):
        pytest.skip("there is no dmesg")
    machine.clear_log()
    for byte in {*range(1, 256)} - {ord("\n")}:  # util-linux indents the lines of a record
        log(machine, b"%d: a%cb\n" % (byte, byte))
    log(machine, "größe 漢字 \u0085\n".encode())
    ours = klpfs("dmesg", "-m", machine.mountpoint, LC_ALL="C.UTF-8").stdout
    words = ("run", "-m", machine.mountpoint, "dmesg")
    theirs = klpfs(*words, LC_ALL="C.UTF-8")
    if b"klpfs run needs" in theirs.stderr:
        pytest.skip(theirs.stderr.decode().strip())
    assert ours.split(b"\n") == theirs.stdout.split(b"\n")


def renamed(module: Path, name: bytes) -> bytes:
    """Return the module ``livepatch-sample`` with another name of at most the same length."""
    old = b"livepatch_sample"
    return module.read_bytes().replace(old + b"\0", name[: len(old)].ljust(len(old) + 1, b"\0"))


NAMES = {
    b"new\nline": r"new\x0aline",
    b"by\xff\xfete": r"by\xff\xfete",
    b"\x1b[31mred": r"\x1b[31mred",
    b"two words": "two words",
    b"a 1 0 - Live 0x": "a 1 0 - Live 0x",
    b"\r\v\f\t": r"\x0d\x0b\x0c\x09",
    b"\xe2\x80\xa8sep\xc2\x85": r"\xe2\x80\xa8sep\xc2\x85",
    b"[bold]x[/bold]": "[bold]x[/bold]",
    "größe".encode(): "größe",
}


def test_lsmod_with_any_name(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    machine = klpfs_machine
    text = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'
    plain = ko("livepatch-sample0", text).read_bytes()
    for name in NAMES:
        data = plain.replace(b"livepatch_sample0\0", name.ljust(18, b"\0"))
        machine.insmod(data)
    done = klpfs("lsmod", "-m", machine.mountpoint)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().split("\n")[1:-1]
    assert [line.rsplit(None, 2)[0].rstrip() for line in lines] == list(reversed(NAMES.values()))
    assert all(line.split()[-1] == "0" for line in lines)
    names = [os.fsencode(module.name) for module in control.lsmod(machine.mountpoint)]
    assert names == list(reversed(NAMES))
    for encoding in ("ascii", "latin-1"):
        done = klpfs("lsmod", "-m", machine.mountpoint, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"")


def test_users_of_a_module(klpfs_machine: Machine, ko: Callable[..., Path]) -> None:
    head = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'
    below = head + "int below(void);\nint below(void) { return 3; }\nEXPORT_SYMBOL(below);\n"
    above = head + "int below(void);\nint init_module(void) { return below() - 3; }\n"
    klpfs_machine.insmod(ko("below", below))
    data = ko("above_this", above).read_bytes()
    klpfs_machine.insmod(data.replace(b"above_this\0", b"a\x1b\xff \nb".ljust(11, b"\0")))
    above_, below_ = control.lsmod(klpfs_machine.mountpoint)
    assert (below_.name, below_.refcount, below_.users) == ("below", "1", ["a\x1b\udcff \nb"])
    assert (above_.users, above_.refcount) == ([], "0")
    lines = klpfs("lsmod", "-m", klpfs_machine.mountpoint).stdout.decode().splitlines()
    assert lines[2].endswith(r"  1 a\x1b\xff \x0ab")
    done = klpfs("rmmod", "-m", klpfs_machine.mountpoint, "below")
    assert done.stderr.decode() == "Error: Module below is in use by: a\\x1b\\xff \\x0ab\n"


# Tables, errors, logs


def test_a_table_has_no_markup_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(calls=[Call("f()", EVIL, "[/]\\")])
    report.add("[bold]x[/bold]", Verdict.BAD, EVIL)
    report.add(EVIL, Verdict.NOTE, "[red]two\nlines[/red]\\")
    os.environ["COLUMNS"] = "400"
    try:
        print_table(report)
    finally:
        del os.environ["COLUMNS"]
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 3
    for text in ("[bold]x[/bold]", "[red]two", "lines[/red]\\", "[/]\\"):
        assert text in out
    assert all(c.isprintable() or c == "\n" for c in out)


def test_an_error_message(tmp_path: Path) -> None:
    name = "\x1b[31mevil\n.ko"
    for command in (("insmod", name), ("check", name), ("build", name), ("umount", name)):
        done = klpfs(*command, KLPFS_MOUNT=str(tmp_path))
        assert done.returncode in (1, 2)
        assert b"\x1b" not in done.stderr + done.stdout
        assert done.stderr.count(b"\n") <= 4


def test_a_report_about_a_hostile_module(ko: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "evil.ko").write_bytes(renamed(ko("livepatch-sample"), b"\x1b[31m[bold]:x:"))
    done = klpfs("check", tmp_path / "evil.ko")
    assert rb"\x1b[31m[bold]:x:" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


def test_the_compiler_s_messages(tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text('#warning "\x1b[31m"\nint \x1b[31m;\n')
    done = klpfs("build", tmp_path / "x.c")
    assert done.returncode == 1
    assert b"x.c:" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


def test_the_log_of_a_daemon() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        record = logging.LogRecord("x", 40, "x", 1, "%s failed", ("\x1b]0;",), sys.exc_info())
    text = _LogFormatter("%(message)s").format(record)
    assert text.startswith("\\x1b]0; failed\nTraceback")
    assert text.endswith(f"ValueError: {SHOWN}")
