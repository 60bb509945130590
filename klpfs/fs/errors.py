# SPDX-License-Identifier: GPL-2.0-or-later
"""Error numbers that the kernel uses internally, and what programs get. include/linux/errno.h."""

from __future__ import annotations

import errno

_ERESTARTSYS, _ERESTART_RESTARTBLOCK = 512, 516
_ENOTSUPP = 524


def raw_errno(number: int | None) -> int:
    """Return the errno that a system call returns to a program, EIO for None.

    It may be a number that libc does not know, such as ENOTSUPP, which Linux does not convert either.
    """
    if number is None or number <= 0:
        return errno.EIO
    return errno.EINTR if _ERESTARTSYS <= number <= _ERESTART_RESTARTBLOCK else number


def user_errno(number: int | None) -> int:
    """Return the errno for an answer to FUSE, which must be below 512.

    FUSE drops an answer with any other number, and the caller would wait for ever.
    """
    number = raw_errno(number)
    if number < _ERESTARTSYS:
        return number
    return errno.EOPNOTSUPP if number == _ENOTSUPP else errno.EIO
