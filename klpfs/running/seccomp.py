# SPDX-License-Identifier: GPL-2.0-or-later
"""Seccomp user notification: another process answers system calls of a process tree.

Documentation/userspace-api/seccomp_filter.rst. libseccomp is not used: it would be one more dependency,
and that of Debian 12 does not support SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV. Without this flag, a signal
that the caller handles restarts the system call, and a module is loaded twice.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from typing import NamedTuple

CALLS = {"init_module": 175, "delete_module": 176, "syslog": 103, "uname": 63, "finit_module": 313}
"""The system calls that are notified, and their x86-64 numbers (arch/x86/entry/syscalls/)."""
CALLS_I386 = {"init_module": 128, "delete_module": 129, "syslog": 103, "uname": 122,
              "finit_module": 350}  # fmt: skip
LSEEK = 8
"""Notified only for lseek(..., 0, SEEK_DATA), which dmesg(1) uses on /dev/kmsg, and which is rare."""

_ARCH_X86_64, _ARCH_I386 = 0xC000003E, 0x40000003
_LD, _JEQ, _RET = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_DATA_NR, _DATA_ARCH, _DATA_ARGS = 0, 4, 16  # struct seccomp_data

_SYS_SECCOMP = 317
_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
_PR_SET_NO_NEW_PRIVS = 38

_REQUEST = struct.Struct("<QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("<QqiI")  # struct seccomp_notif_resp
_IOCTL_RECV, _IOCTL_SEND = 0xC0502100, 0xC0182101
_IOCTL_ID_VALID = 0x40082102
_CONTINUE = 1

_libc = ctypes.CDLL(None, use_errno=True)

_TOO_OLD = (
    "klpfs run needs seccomp user notification, which this kernel lacks: use Linux 5.9 or later, with "
    "CONFIG_SECCOMP_FILTER"
)

Instruction = tuple[int, int, int, int]


class Unsupported(Exception):
    """The host's kernel cannot notify us of system calls. The message says what is missing."""


class Notification(NamedTuple):
    """A system call that waits for its answer.

    ``tid`` is the calling thread. ``call`` is the name of the system call, or None for lseek.
    """

    id: int
    tid: int
    call: str | None
    args: tuple[int, ...]


def _equals(value: int, then: list[Instruction]) -> list[Instruction]:
    """Return code that runs ``then`` if the accumulator is ``value``, and skips it otherwise."""
    return [(_JEQ, 0, len(then), value), *then]


def _argument_equals(number: int, value: int, then: list[Instruction]) -> list[Instruction]:
    """Return code that runs ``then`` if the lower half of an argument is ``value``."""
    return [(_LD, 0, 0, _DATA_ARGS + 8 * number), *_equals(value, then)]


def _program() -> list[Instruction]:
    """Return the filter in BPF: notify of the system calls above, and allow all others."""
    allow, notify = (_RET, 0, 0, _ALLOW), (_RET, 0, 0, _USER_NOTIF)
    load_number = (_LD, 0, 0, _DATA_NR)

    def calls(table: dict[str, int]) -> list[Instruction]:
        return [load_number, *(step for nr in table.values() for step in _equals(nr, [notify]))]

    seek = _argument_equals(1, 0, _argument_equals(2, os.SEEK_DATA, [notify]))
    return [
        (_LD, 0, 0, _DATA_ARCH),
        *_equals(_ARCH_X86_64, [*calls(CALLS), *_equals(LSEEK, [*seek, allow]), allow]),
        *_equals(_ARCH_I386, [*calls(CALLS_I386), allow]),
        allow,
    ]


def _seccomp(operation: int, flags: int, argument: object) -> int:
    return int(_libc.syscall(_SYS_SECCOMP, operation, flags, argument))


def _kernel_version() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


def install() -> int:
    """Install the filter for this thread and its future children, and return the listener's descriptor.

    Raise `Unsupported`.
    """
    if _kernel_version() < (5, 9):  # earlier kernels do not report that the last process has ended
        raise Unsupported(_TOO_OLD)
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in _program())
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    program = ctypes.create_string_buffer(pointer, len(pointer))  # struct sock_fprog
    for attempt in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):
        descriptor = _seccomp(_SET_MODE_FILTER, attempt, program)
        if descriptor < 0 and ctypes.get_errno() == errno.EACCES:
            # Without CAP_SYS_ADMIN this is required. Set-user-id bits have no effect then.
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            descriptor = _seccomp(_SET_MODE_FILTER, attempt, program)
        if descriptor >= 0:
            return descriptor
        if ctypes.get_errno() != errno.EINVAL:
            break
    match ctypes.get_errno():
        case errno.EBUSY:
            raise Unsupported(
                "this process already has a seccomp supervisor: klpfs run cannot run inside another "
                "klpfs run"
            )
        case errno.EINVAL | errno.ENOSYS:
            raise Unsupported(_TOO_OLD)
        case number:
            raise Unsupported(f"cannot install the seccomp filter: {os.strerror(number)}")


class Listener:
    """The supervisor's end. The methods raise OSError(ENOENT) if the caller is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        sizes = ctypes.create_string_buffer(6)
        _seccomp(_GET_NOTIF_SIZES, 0, sizes)
        request, response, _ = struct.unpack("<HHH", sizes)
        self._request_size = max(request, _REQUEST.size)
        self._response_size = max(response, _RESPONSE.size)
        self._names = {
            _ARCH_X86_64: {number: name for name, number in CALLS.items()},
            _ARCH_I386: {number: name for name, number in CALLS_I386.items()},
        }

    def fileno(self) -> int:
        """Return the descriptor: readable if a call waits, hung up after the last process ended."""
        return self._descriptor

    def receive(self) -> Notification:
        """Return the next call that waits."""
        buffer = bytearray(self._request_size)
        fcntl.ioctl(self._descriptor, _IOCTL_RECV, buffer)
        id_, tid, _flags, number, arch, _ip, *args = _REQUEST.unpack_from(buffer)
        return Notification(id_, tid, self._names.get(arch, {}).get(number), tuple(args))

    def check(self, notification: Notification) -> None:
        """Raise OSError(ENOENT) if the caller is gone. Its thread id may be in use again then."""
        fcntl.ioctl(self._descriptor, _IOCTL_ID_VALID, struct.pack("<Q", notification.id))

    def answer(self, notification: Notification, result: int) -> None:
        """Let the call return ``result``, a negative errno for an error."""
        value, error = (0, result) if result < 0 else (result, 0)
        self._send(notification, value, error, 0)

    def pass_to_host(self, notification: Notification) -> None:
        """Let the host's kernel execute the call."""
        self._send(notification, 0, 0, _CONTINUE)

    def _send(self, notification: Notification, value: int, error: int, flags: int) -> None:
        response = _RESPONSE.pack(notification.id, value, error, flags)
        buffer = bytearray(response.ljust(self._response_size, b"\0"))
        fcntl.ioctl(self._descriptor, _IOCTL_SEND, buffer)
