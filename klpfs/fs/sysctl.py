# SPDX-License-Identifier: GPL-2.0-or-later
"""``proc/sys``: its files and directories, and the format of numbers. kernel/sysctl.c,
fs/proc/proc_sysctl.c."""

from __future__ import annotations

import errno
import re

from klpfs.fs.attributes import ProcFile
from klpfs.fs.nodes import ProcDirectory

_NUMBER = re.compile(
    rb"[ \t\n\v\f\r]*(-?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)(?:[ \t\n]|$)", re.DOTALL
)
_MAX_DIGITS = 20
"""The longest number: one less than fits in TMPBUFLEN."""
_INT_MAX, _ULONG_MAX = (1 << 31) - 1, (1 << 64) - 1


class Sysctl(ProcFile):
    """A file of proc/sys. Its mode applies to root too."""

    checked_on_open = True


class SysctlDirectory(ProcDirectory):
    """A directory of proc/sys."""

    remove_errno = errno.EACCES


def dointvec(data: bytes) -> int:
    """Return the int in the data of a write (``proc_dointvec``). Raise OSError(EINVAL)."""
    negative, number = _get_long(data)
    if number > _INT_MAX + negative:
        raise OSError(errno.EINVAL, "not an int")
    return -number if negative else number


def doulongvec(data: bytes) -> int:
    """Return the unsigned long in the data of a write (``proc_doulongvec_minmax``).

    Raise OSError(EINVAL).
    """
    negative, number = _get_long(data)
    if negative:
        raise OSError(errno.EINVAL, "negative")
    return number


def _get_long(data: bytes) -> tuple[bool, int]:
    """Return whether a number is negative, and its absolute value (``proc_get_long``).

    It is decimal, octal (0) or hexadecimal (0x). Anything after white space is ignored. Raise
    OSError(EINVAL).
    """
    found = _NUMBER.match(data)
    if not found or len(found[2]) > _MAX_DIGITS:
        raise OSError(errno.EINVAL, "not a number")
    digits = found[2]
    octal = digits[:1] == b"0" and digits[1:2] not in b"xX"
    number = int(digits, 8 if octal else 0)
    if number > _ULONG_MAX:
        raise OSError(errno.EINVAL, "too large")
    return bool(found[1]), number
