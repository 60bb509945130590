# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs run``: an unmodified program sees the guest's kernel.

This process itself becomes the program, so that its terminal, its job control, its signals and its
exit status are what they would be without us. The supervisor, which makes the program's system calls
in the guest, is a process apart that ends with the last one of the program's descendants.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from klpfs import control
from klpfs.mounting import mounts
from klpfs.running import namespace, seccomp
from klpfs.running.supervisor import Supervisor

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit status if the command cannot be run, as of a shell."""


class RunError(Exception):
    """It cannot be done; the message is a sentence that says why."""


def run(
    command: Sequence[str],
    machine: Path | None,
    mount: Callable[[Path], None],
    modules: Iterable[Path] = (),
) -> NoReturn:
    """Become ``command``, in the view of the machine that is mounted on ``machine``. If that is None,
    ``mount`` mounts one on a directory, for as long as the command or a process of it lives; the
    host's mount namespace sees it for no longer than it takes to start.

    Raises `RunError`, or what ``mount`` raises; ends the process if there is no such command.
    """
    own = machine is None
    if machine is None:
        machine = Path(tempfile.mkdtemp(prefix="klpfs-"))
        try:
            mount(machine)
        except BaseException:
            machine.rmdir()
            raise
    machine = machine.absolute()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        root = os.open(machine, os.O_PATH | os.O_DIRECTORY)
        _supervise(its, ours, root, machine if own else None)
        its.close()
        os.close(root)
        namespace.enter(machine, modules)
        listener = seccomp.install()
        socket.send_fds(ours, [b"listener"], [listener])
        os.close(listener)
        if not ours.recv(1):
            raise RunError("the supervisor, which makes the system calls, has died")
    except (namespace.NamespaceError, seccomp.Unsupported) as error:
        raise RunError(str(error)) from None
    finally:
        ours.close()
    os.environ["KLPFS_MOUNT"] = str(machine)
    _become(command)


def _become(command: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        print(f"klpfs: {command[0]}: command not found", file=sys.stderr)
        sys.exit(NOT_FOUND)
    except OSError as error:
        print(f"klpfs: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_EXECUTABLE)


# The supervisor's process


def _supervise(its: socket.socket, ours: socket.socket, root: int, own: Path | None) -> None:
    """Start it. It waits for the descriptor of the filter on ``its``; ``own`` is the mount that goes
    with it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:  # nobody's child: the program must not be told of it by wait(2)
            ours.close()
            _stay_alone({its.fileno(), root})
            _supervisor(its, root, own)
    finally:
        os._exit(0)


def _stay_alone(keep: set[int]) -> None:
    """Hold on to nothing of the caller's: a pipe would not end, a file system would be busy."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    first = 3
    for descriptor in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, descriptor)
        first = descriptor + 1


def _supervisor(its: socket.socket, root: int, own: Path | None) -> None:
    try:
        # Before this, the program is not in its namespace yet, or died on its way there.
        _, descriptors, _, _ = socket.recv_fds(its, 16, 1)
        if own is not None:
            _detach(own)
        if descriptors:
            supervisor = Supervisor(seccomp.Listener(descriptors[0]), root)
            its.send(b"!")
            its.close()
            supervisor.run()
    finally:
        os.close(root)
        if own is not None:
            # Earlier, and the mount in the other namespace would go with its directory.
            with suppress(OSError):
                own.rmdir()


def _detach(mountpoint: Path) -> None:
    """Take the mount out of this namespace; the machine runs on while another has it."""
    with suppress(OSError, mounts.MountError):
        mounts.detach(str(mountpoint), lazy=True)


def find_machine(given: str | None) -> Path | None:
    """The mount that is meant, or None if there is none and none was named.

    Raises `control.NoMachine`.
    """
    if given is None and not os.environ.get("KLPFS_MOUNT") and not control.machines():
        return None
    return control.find_machine(given)
