# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers as kernel/sysctl.c parses them. Each case was compared with a booted kernel."""

from __future__ import annotations

import errno

import pytest

from klpfs.fs.sysctl import dointvec, doulongvec
from klpfs.pytest_plugin import Machine


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1", 1), (" 1", 1), ("\t1\n", 1), ("1 2", 1), ("-1", -1), ("01", 1), ("010", 8), ("0x1F", 31),
        ("-0x10", -16), ("2147483647", 2147483647), ("-2147483648", -2147483648),
        ("", None), ("\n", None), ("+1", None), ("1x", None), ("x", None), ("0x", None), ("1,2", None),
        ("1.5", None), ("- 1", None), ("08", None), ("1\0", None), ("\0001", None),
        ("2147483648", None), ("-2147483649", None), ("99999999999999999999", None), ("0" * 21, None),
    ],
)  # fmt: skip
def test_an_int(written: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(OSError, match=str(errno.EINVAL)):
            dointvec(written.encode())
    else:
        assert dointvec(written.encode()) == number


def test_an_unsigned_long() -> None:
    assert doulongvec(b"18446744073709551615\n") == (1 << 64) - 1
    for written in (b"-1", b"18446744073709551616", b"+1"):
        with pytest.raises(OSError, match=str(errno.EINVAL)):
            doulongvec(written)


def test_what_proc_sys_refuses_even_root(klpfs_machine: Machine) -> None:
    kernel = klpfs_machine.path("proc/sys/kernel")
    with pytest.raises(PermissionError):
        (kernel / "osrelease").write_text("6.2\n")
    with pytest.raises(PermissionError) as refused:
        (kernel / "tainted").unlink()
    assert refused.value.errno == errno.EACCES
    with pytest.raises(FileNotFoundError):
        (kernel / "new").touch()
    with pytest.raises(FileNotFoundError):
        (kernel / "new").mkdir()


def test_every_taint_can_be_set_and_none_taken_away(klpfs_machine: Machine) -> None:
    klpfs_machine.write("proc/sys/kernel/tainted", f"{(1 << 64) - 1}\n")
    assert klpfs_machine.read("proc/sys/kernel/tainted") == f"{(1 << 19) - 1}\n"
    klpfs_machine.write("proc/sys/kernel/tainted", "0\n")
    assert klpfs_machine.read("proc/sys/kernel/tainted") == f"{(1 << 19) - 1}\n"
