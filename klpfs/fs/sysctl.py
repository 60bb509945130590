# SPDX-License-Identifier: GPL-2.0-or-later
"""``proc/sys``: its files and directories, and how numbers are read there. kernel/sysctl.c,
fs/proc/proc_sysctl.c."""

from __future__ import annotations

import errno
import re

from klpfs.fs.nodes import ProcDirectory, ProcFile

_NUMBER = re.compile(
    rb"[ \t\n\v\f\r]*(-?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)(?:[ \t\n]|$)", re.DOTALL
)
_MAX_DIGITS = 20
"""One less than TMPBUFLEN has room for."""
_INT_MAX, _ULONG_MAX = (1 << 31) - 1, (1 << 64) - 1


class Sysctl(ProcFile):
    """A file of proc/sys: what its mode does not allow, root may not do either."""

    checked_on_open = True


class SysctlDirectory(ProcDirectory):
    """A directory of proc/sys."""

    remove_errno = errno.EACCES


def dointvec(data: bytes) -> int:
    """``proc_dointvec``: the int that was written. Raises OSError(EINVAL)."""
    negative, number = _get_long(data)
    if number > _INT_MAX + negative:
        raise OSError(errno.EINVAL, "not an int")
    return -number if negative else number


def doulongvec(data: bytes) -> int:
    """``proc_doulongvec_minmax``: the unsigned long that was written. Raises OSError(EINVAL)."""
    negative, number = _get_long(data)
    if negative:
        raise OSError(errno.EINVAL, "negative")
    return number


def _get_long(data: bytes) -> tuple[bool, int]:
    """``proc_get_long``: decimal, 0 octal or 0x hexadecimal; what comes after a blank is not looked at."""
    found = _NUMBER.match(data)
    if not found or len(found[2]) > _MAX_DIGITS:
        raise OSError(errno.EINVAL, "not a number")
    digits = found[2]
    octal = digits[:1] == b"0" and digits[1:2] not in b"xX"
    number = int(digits, 8 if octal else 0)
    if number > _ULONG_MAX:
        raise OSError(errno.EINVAL, "too large")
    return bool(found[1]), number
