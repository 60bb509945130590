# SPDX-License-Identifier: GPL-2.0-or-later
"""``klpfs run``: run an unmodified program so that it sees the guest's kernel.

This process itself executes the program, so that the program's terminal, job control, signals and exit
status are as without klpfs. The supervisor, which makes the program's system calls in the guest, is
another process. It ends with the program's last descendant.
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
"""Exit statuses if the program cannot be executed, those of a shell."""


class RunError(Exception):
    """The program cannot be run. The message says why."""


def run(
    command: Sequence[str],
    machine: Path | None,
    mount: Callable[[Path], None],
    modules: Iterable[Path] = (),
) -> NoReturn:
    """Execute ``command`` in this process, in the view of the machine mounted on ``machine``.

    If ``machine`` is None, ``mount`` is called to mount a private machine on a directory. It lasts until
    the last descendant of the command ends. It is visible in the host's mount namespace only while the
    command starts.

    ``modules``: directories with modules, as for `klpfs.running.namespace.enter`.

    Raise `RunError` or the errors of ``mount``. If the command cannot be executed, exit.
    """
    private = machine is None
    if machine is None:
        machine = Path(tempfile.mkdtemp(prefix="klpfs-"))
        try:
            mount(machine)
        except BaseException:
            machine.rmdir()
            raise
    machine = machine.absolute()
    program_end, supervisor_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        root = mounts.open_machine(machine)
        _start_supervisor(supervisor_end, program_end, root, machine if private else None)
        supervisor_end.close()
        namespace.enter(machine, root, modules)
        os.close(root)
        listener = seccomp.install()
        socket.send_fds(program_end, [b"listener"], [listener])
        os.close(listener)
        if not program_end.recv(1):
            raise RunError("the supervisor, which makes the system calls, has died")
    except (namespace.NamespaceError, mounts.MountError, seccomp.Unsupported) as error:
        raise RunError(str(error)) from None
    finally:
        program_end.close()
    os.environ["KLPFS_MOUNT"] = str(machine)
    _execute(command)


def _execute(command: Sequence[str]) -> NoReturn:
    """Replace this process by the program, or exit like a shell if that fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        print(f"klpfs: {command[0]}: command not found", file=sys.stderr)
        sys.exit(NOT_FOUND)
    except OSError as error:
        print(f"klpfs: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_EXECUTABLE)


# -- the supervisor's process ---------------------------------------------------------------------


def _start_supervisor(
    supervisor_end: socket.socket,
    program_end: socket.socket,
    root: int,
    private_mount: Path | None,
) -> None:
    """Start the supervisor, which waits on its end of the socket for the seccomp listener.

    ``root``: a descriptor of the machine's root. ``private_mount``: the mount point to remove when the
    supervisor ends, if the machine is private.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:  # a grandchild: wait(2) of the program must not report it
            program_end.close()
            _leave_resources_of_caller({supervisor_end.fileno(), root})
            _run_supervisor(supervisor_end, root, private_mount)
    finally:
        os._exit(0)


def _leave_resources_of_caller(keep: set[int]) -> None:
    """Leave the caller's directory and close its descriptors, except those in ``keep``.

    Otherwise a pipe would never reach its end, and a file system would be busy.
    """
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    first = 3
    for descriptor in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, descriptor)
        first = descriptor + 1


def _run_supervisor(supervisor_end: socket.socket, root: int, private_mount: Path | None) -> None:
    try:
        # Returns when the program has entered its namespace, or has died before that.
        _, descriptors, _, _ = socket.recv_fds(supervisor_end, 16, 1)
        if private_mount is not None:
            _hide_mount(private_mount)
        if descriptors:
            supervisor = Supervisor(seccomp.Listener(descriptors[0]), root)
            supervisor_end.send(b"!")
            supervisor_end.close()
            supervisor.run()
    finally:
        os.close(root)
        if private_mount is not None:
            # Not earlier: rmdir(2) would also unmount it in the program's namespace.
            with suppress(OSError):
                private_mount.rmdir()


def _hide_mount(mountpoint: Path) -> None:
    """Detach a mount from this namespace. The machine runs on while another namespace has it."""
    with suppress(OSError, mounts.MountError):
        mounts.detach(str(mountpoint), lazy=True)


def find_machine(given: str | None) -> Path | None:
    """Return the mount point to use, or None if none is given and none is mounted.

    Raise `klpfs.control.NoMachine` if the given one is not mounted, or if there are several.
    """
    if given is None and not os.environ.get("KLPFS_MOUNT") and not control.machines():
        return None
    return control.find_machine(given)
