# SPDX-License-Identifier: GPL-2.0-or-later
"""klpfs check: its results for good live patches, and for patches with one fault each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from klp_guest import patch_source

from klpfs.checking.check import check
from klpfs.checking.report import Report, Verdict
from klpfs.cli import main
from klpfs.machine.image import Image, embedded

Ko = Callable[..., Path]

PRINTS = """
#include <linux/bug.h>
#include <linux/module.h>
int prints(void);
int prints(void) { pr_info("a line\\n"); pr_info("another\\n"); return 7; }
int warns(void);
int warns(void) { WARN_ON(1); return 8; }
static int __init prints_init(void) { return 0; }
module_init(prints_init);
MODULE_LICENSE("GPL");
"""


@pytest.fixture(scope="module")
def image() -> Image:
    return embedded.load()


@pytest.fixture
def check_(image: Image, ko: Ko) -> Callable[..., Report]:
    """Check a module of tests/modules, or one built from text."""

    def run(name: str, text: str | None = None, **options: Any) -> Report:
        return check(image, ko(name, text).read_bytes(), **options)

    return run


def told(report: Report, subject: str) -> str:
    """Return the findings about a subject that are not good."""
    return next(
        f"{finding.verdict.value}: {finding.detail}"
        for finding in report.findings
        if finding.subject == subject and finding.verdict is not Verdict.GOOD
    )


def bad(report: Report) -> list[str]:
    return [f.subject for f in report.findings if f.verdict is Verdict.BAD]


# -- good ones ------------------------------------------------------------------------------------


def test_a_good_patch(check_: Callable[..., Report]) -> None:
    report = check_("livepatch-sample", calls=["cmdline_proc_show(seq)"])
    assert report.verdict is Verdict.GOOD
    assert [f.subject for f in report.findings if f.verdict is Verdict.GOOD] == [
        "vermagic", "symbols", "load", "vmlinux:cmdline_proc_show", "enable: transition", "disable",
        "disable: transition", "unload", "memory",
    ]  # fmt: skip
    (call,) = report.calls
    assert call.before.startswith("'BOOT_IMAGE=")
    assert call.after == r"'this has been live patched\n'"


def test_a_patch_for_a_module(check_: Callable[..., Report], ko: Ko) -> None:
    report = check_("check/for_a_module")
    assert report.verdict is Verdict.UNKNOWN
    assert "klp_answer is not loaded" in told(report, "klp_answer:answer")

    module = ko("klp_answer").read_bytes()
    report = check_("check/for_a_module", modules=[module], calls=["answer()"])
    assert report.verdict is Verdict.GOOD
    assert (report.calls[0].before, report.calls[0].after) == ("1 (0x1)", "2 (0x2)")


# -- each with its fault --------------------------------------------------------------------------


def test_for_another_kernel(image: Image, ko: Ko) -> None:
    release = image.release.encode()
    data = ko("livepatch-sample").read_bytes()
    other = data.replace(b"vermagic=" + release, b"vermagic=9" + release[1:])
    assert other != data
    report = check(image, other)
    assert bad(report) == ["vermagic", "load"]
    assert f"the kernel is '{image.vermagic.strip()}'" in told(report, "vermagic")
    assert "version magic '9" in told(report, "load")


def test_a_wrong_sympos(check_: Callable[..., Report]) -> None:
    report = check_("check/wrong_sympos")
    assert bad(report) == ["vmlinux:cmdline_proc_show", "load"]
    found = told(report, "vmlinux:cmdline_proc_show")
    assert found.startswith(
        "would fail: sympos is 3, but only one symbol has this name: 1 at 0xffffffff81"
    )


def test_a_function_that_does_not_exist(check_: Callable[..., Report]) -> None:
    report = check_("nothing", patch_source({None: {"no_such_function": 1}}))
    assert bad(report) == ["vmlinux:no_such_function", "load"]
    assert "no such symbol in vmlinux" in told(report, "vmlinux:no_such_function")


def test_a_function_without_an_ftrace_site(check_: Callable[..., Report]) -> None:
    report = check_("check/no_site")
    assert bad(report) == ["vmlinux:klp_ftrace_handler", "load"]
    found = told(report, "vmlinux:klp_ftrace_handler")
    assert "has no ftrace site and cannot be patched: it is notrace" in found


def test_an_init_that_oopses(check_: Callable[..., Report]) -> None:
    report = check_("check/init_oopses")
    assert bad(report) == ["load"]
    found = told(report, "load")
    assert (
        "BUG: kernel NULL pointer dereference, address: 0000000000000008, in patch_init+" in found
    )
    assert found.endswith("[init_oopses]")


def test_an_init_without_end(check_: Callable[..., Report]) -> None:
    report = check_("check/endless_init")
    assert bad(report) == ["load"]
    found = told(report, "load")
    assert "did not finish; klpfs is in " in found
    assert "patch_init+" in found


def test_an_init_that_exits_its_task(check_: Callable[..., Report]) -> None:
    init = "__module_put_and_kthread_exit(THIS_MODULE, 0);"
    report = check_("exits", patch_source({None: {"cmdline_proc_show": 0}}, init=init))
    assert bad(report) == ["load"]
    assert told(report, "load") == "would fail: the task exited before it was done"


def test_a_patch_that_can_never_be_disabled(check_: Callable[..., Report]) -> None:
    report = check_("check/never_lets_go", wait=20)
    assert bad(report) == ["disable: transition"]
    found = told(report, "disable: transition")
    assert found.startswith("would fail: not finished after 20 s; server is in ")
    assert "[never_lets_go]" in found


def test_a_thread_that_is_left_behind(check_: Callable[..., Report]) -> None:
    report = check_("check/leaves_a_thread")
    assert "server still runs code of the module, which is unloaded" in told(report, "tasks")
    assert report.verdict is Verdict.BAD


def test_a_leak(check_: Callable[..., Report]) -> None:
    report = check_("check/leaks")
    assert bad(report) == ["memory"]
    assert told(report, "memory").startswith("would fail: not freed: 1 allocated by patch_init")


def test_what_a_call_leaves_is_not_the_patch_s(check_: Callable[..., Report]) -> None:
    report = check_("livepatch-sample", calls=['kstrdup("a string", 0xcc0)'])
    assert report.verdict is Verdict.GOOD


def test_a_symbol_that_is_not_exported(check_: Callable[..., Report]) -> None:
    text = patch_source({None: {"cmdline_proc_show": 0}}, init="return no_such_thing();")
    text = text.replace(
        "#include <linux/module.h>", "#include <linux/module.h>\nint no_such_thing(void);"
    )
    report = check_("imports", text)
    assert bad(report) == ["symbols", "load"]
    assert told(report, "symbols") == "would fail: not exported: no_such_thing"


def test_no_live_patch_and_no_module(check_: Callable[..., Report], image: Image) -> None:
    report = check_("klp_answer")
    assert "klp_answer is not a live patch" in told(report, "file")
    assert check(image, b"no ELF file").verdict is Verdict.BAD


def test_an_init_that_enables_nothing(check_: Callable[..., Report]) -> None:
    report = check_("idle", patch_source({None: {"cmdline_proc_show": 0}}, init="return 0;"))
    assert report.verdict is Verdict.UNKNOWN
    assert "the module's init function enables no patch" in told(report, "enable")


# -- calls ----------------------------------------------------------------------------------------


def test_calls_with_numbers_and_strings(check_: Callable[..., Report]) -> None:
    calls = ['strlen("a \\"b\\"")', 'strcmp("a", "b")', "no_such_function(1, -2, 0x3)"]
    report = check_("livepatch-sample", calls=calls)
    assert [call.before for call in report.calls] == [
        "5 (0x5)", "-1 (0xffffffff)", "no such function",
    ]  # fmt: skip
    assert all(call.before == call.after for call in report.calls)


def test_a_call_that_prints_to_the_log(check_: Callable[..., Report], ko: Ko) -> None:
    module = ko("prints", PRINTS).read_bytes()
    report = check_("livepatch-sample", modules=[module], calls=["prints()", "warns()"])
    prints, warns = report.calls
    assert prints.before == prints.after == "7 (0x7); a line; another"
    assert warns.before.startswith("8 (0x8); WARNING: CPU: 0 PID: 1 at ")
    assert "in warns+" in warns.before
    assert report.verdict is Verdict.GOOD


@pytest.mark.parametrize(
    "call", ["strlen", "strlen(", "strlen(x y)", 'strlen("a)', "f(1 2)", "f(g())"]
)
def test_a_call_that_cannot_be_read(check_: Callable[..., Report], call: str) -> None:
    with pytest.raises(ValueError, match="is neither a number nor|is not a call"):
        check_("livepatch-sample", calls=[call])


def test_a_call_that_oopses_decides_nothing(check_: Callable[..., Report]) -> None:
    report = check_("livepatch-sample", calls=["strlen(0)"])
    assert report.verdict is Verdict.GOOD
    assert report.calls[0].after.startswith("BUG: kernel NULL pointer dereference")
    assert "in strlen+" in report.calls[0].after


# -- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], env={"COLUMNS": "200"})


def test_exit_statuses(ko: Ko) -> None:
    assert command(ko("livepatch-sample")).exit_code == 0
    assert command(ko("check/leaks")).exit_code == 1
    assert command(ko("check/for_a_module")).exit_code == 2
    assert command(ko("check/for_a_module"), "--module", ko("klp_answer")).exit_code == 0
    assert command("/nowhere/patch.ko").exit_code == 2


def test_the_table(ko: Ko) -> None:
    done = command(ko("livepatch-sample"), "--call", "cmdline_proc_show(seq)")
    assert "vmlinux:cmdline_proc_show   good" in done.output
    assert r"'this has been live patched\n'" in done.output
    assert done.output.splitlines()[-1] == "good"


def test_json(ko: Ko) -> None:
    done = command(ko("check/wrong_sympos"), "--json", "--call", 'strlen("abc")')
    assert done.exit_code == 1
    report = json.loads(done.output)
    assert report["verdict"] == "would fail"
    assert {"subject", "verdict", "detail"} == set(report["findings"][0])
    assert report["calls"] == [{"call": 'strlen("abc")', "before": "3 (0x3)", "after": ""}]


def test_a_sentence_for_what_cannot_be_read(ko: Ko) -> None:
    done = command(ko("livepatch-sample"), "--call", "strlen(")
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert len(done.output.splitlines()) == 1
