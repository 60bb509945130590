# SPDX-License-Identifier: GPL-2.0-or-later
"""Error numbers of the kernel's own, and what programs get for them. include/linux/errno.h."""

from __future__ import annotations

import errno

_ERESTARTSYS, _ERESTART_RESTARTBLOCK = 512, 516
_ENOTSUPP = 524


def raw_errno(number: int | None) -> int:
    """What a system call returns to a program, with the sign changed. There are numbers that no program
    knows: it gets them as they are, where it makes the call itself."""
    if number is None or number <= 0:
        return errno.EIO
    return errno.EINTR if _ERESTARTSYS <= number <= _ERESTART_RESTARTBLOCK else number


def user_errno(number: int | None) -> int:
    """The errno that a program gets. FUSE carries those below 512 and no others: an answer with any
    other number would be no answer, and its caller would wait for ever."""
    number = raw_errno(number)
    if number < _ERESTARTSYS:
        return number
    return errno.EOPNOTSUPP if number == _ENOTSUPP else errno.EIO
