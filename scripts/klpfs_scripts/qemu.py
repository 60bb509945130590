# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel booted in QEMU, with programs of the host in it: the reference to compare klpfs with.

    kernel = debian.kernel()
    with Qemu(kernel.vmlinuz, modules=debian.upstream_modules(kernel)) as booted:
        print(f"a shell after {booted.seconds_to_shell:.1f} s")
        done = booted.run("modprobe livepatch-sample && cat /proc/cmdline")
        print(done.status, done.output, done.seconds)

The computer has one processor, which is emulated (TCG) unless another accelerator is chosen, and no
disk. Its files are in an initramfs that is made on the fly: bash, coreutils, kmod and so on from
the host, with the libraries that they need, and the files that the caller names. Two serial ports
lead out of it: one is the kernel's console, the other carries jobs in and their output out. With
``snapshots``, its state can be saved once and restored often.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from klpfs_scripts.command import ScriptError

PACKAGES = (
    "qemu-system-x86",
    "qemu-utils",
    "cpio",
    "kmod",
    "procps",
    "util-linux",
    "gawk",
    "diffutils",
    "findutils",
)
"""Debian packages that the host needs."""

TOOLS = """
    awk base64 basename bash cat chmod chown cmp comm cp cut date dd depmod diff dirname dmesg echo env expr
    false find fold free getopt grep gawk head id insmod join kill kmod ln ls lsmod md5sum mkdir mkfifo mknod
    mktemp modinfo modprobe mount mv nproc od paste pgrep pkill printf ps pwd readlink realpath rev rm rmdir
    rmmod sed seq setsid sh sha256sum sleep sort stat strings stty sync sysctl tac tail taskset tee test time
    timeout touch tr true truncate uname umount uniq unshare uptime wc which xargs xxd yes
"""
"""Programs of the host that the guest gets, where the host has them."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MARK = b"\x1eklpfs "
"""The beginning of our own lines in the output of a job."""

_INIT = f"""#!/usr/bin/bash
export PATH={_PATH} HOME=/ TERM=dumb
ln -s usr/bin /bin
ln -s usr/bin /sbin
ln -s bin /usr/sbin
mkdir -p /proc /sys /dev /tmp /run /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
exec >/dev/console 2>&1 3<>/dev/ttyS1
stty raw -echo <&3
if [[ -d /modules ]]; then
    directory=/lib/modules/$(uname -r)
    mkdir -p $directory
    ln -s /modules $directory/extra
    touch $directory/modules.{{order,builtin,builtin.modinfo}}
    depmod
fi
printf '\\x1eklpfs ready\\n' >&3
while IFS= read -r job <&3; do
    base64 -d <<<"$job" >/job
    bash /job </dev/null >&3 2>&3 3>&-
    printf '\\x1eklpfs exit %d\\n' $? >&3
done
"""


class QemuError(ScriptError):
    """The kernel did not boot, QEMU died, or a job took too long. The message has the end of the
    console."""


@dataclass(frozen=True)
class Done:
    """A job that has ended."""

    status: int
    """The exit status, as of a shell: 128 and more is a signal."""
    output: str
    """Standard output and standard error."""
    seconds: float
    """The time that it took, by the host's clock."""


class Qemu:
    """A booted kernel. A context manager, which switches it off at the end.

    ``files``: more files for the guest, by path: a file or directory of the host, or the contents.
    ``modules``: a directory with modules, which modprobe finds in /lib/modules/RELEASE/extra.
    ``tools``: more programs of the host. ``append``: more words for the kernel's command line.
    ``arguments``: more arguments of QEMU. ``console``: a file for the output of the kernel's
    console. ``snapshots``: make `save` and `restore` work. ``timeout``: the seconds to wait for a
    shell.

    Raises `QemuError`.
    """

    def __init__(
        self,
        vmlinuz: Path,
        files: Mapping[str, Path | bytes] | None = None,
        *,
        modules: Path | None = None,
        tools: Iterable[str] = (),
        memory: str = "1G",
        append: str = "",
        accelerator: str = "tcg",
        cpu: str = "max",
        arguments: Iterable[str] = (),
        console: Path | None = None,
        snapshots: bool = False,
        timeout: float = 300,
    ) -> None:
        self._work = tempfile.TemporaryDirectory(prefix="klpfs-qemu-")
        work = Path(self._work.name)
        self._console = console or work / "console"
        self._buffer = b""
        initramfs = work / "initramfs"
        try:
            contents: dict[str, Path | bytes] = {"/init": _INIT.encode()}
            if modules:
                contents["/modules"] = modules
            make_initramfs(initramfs, {**contents, **(files or {})}, (*TOOLS.split(), *tools))
            self._command = [
                "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                "-accel", accelerator, "-cpu", cpu, "-m", memory,
                "-serial", f"file:{self._console}", "-serial", "stdio",
                "-kernel", str(vmlinuz), "-initrd", str(initramfs),
                "-append", f"console=ttyS0 quiet panic=-1 rdinit=/init {append}".strip(),
                *(_snapshot_arguments(work) if snapshots else ()),
                *arguments,
            ]  # fmt: skip
            self.started = time.monotonic()
            self._process = _popen(self._command)
        except BaseException:
            self._work.cleanup()
            raise
        try:
            self._until("ready", timeout, None)
        except BaseException:
            self.close()
            raise
        self.seconds_to_shell = time.monotonic() - self.started
        """The time from the start of QEMU to a shell, by the host's clock."""

    @property
    def pid(self) -> int:
        """The pid of QEMU, for its memory and CPU time."""
        return self._process.pid

    def save(self) -> None:
        """Save the state of the computer, for `restore`. Raises `QemuError`."""
        with Monitor(Path(self._work.name, "monitor")) as monitor:
            monitor.command(f"savevm {_SNAPSHOT}")

    def restore(self) -> None:
        """Put the computer back into the state that was saved.

        This needs a new QEMU: in the same one, the time stamp counter would not go back (QEMU 7.2).
        """
        self._stop()
        self._buffer = b""
        self._process = _popen([*self._command, "-loadvm", _SNAPSHOT])

    def run(
        self, job: str, *, timeout: float = 600, on_output: Callable[[bytes], None] | None = None
    ) -> Done:
        """Run a shell script (bash). ``on_output`` is called with its output as it comes.

        Raises `QemuError`. After that only `restore` and `close` work.
        """
        assert self._process.stdin is not None
        start = time.monotonic()
        try:
            self._process.stdin.write(base64.b64encode(job.encode()) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._error("QEMU has ended") from None
        output, status = self._until("exit", timeout, on_output)
        return Done(int(status), output.decode("utf-8", "replace"), time.monotonic() - start)

    def console(self) -> str:
        """Return what the kernel has printed on its console."""
        return self._console.read_text("utf-8", "replace").replace("\r\n", "\n")

    def close(self) -> None:
        """Switch the computer off."""
        self._stop()
        self._work.cleanup()

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _until(
        self, word: str, timeout: float, on_output: Callable[[bytes], None] | None
    ) -> tuple[bytes, str]:
        """Return the output before our line that begins with ``word``, and the rest of that line."""
        assert self._process.stdout is not None
        pattern = re.compile(re.escape(_MARK + word.encode()) + rb" ?([^\n]*)\n")
        deadline = time.monotonic() + timeout
        passed_on = 0
        while not (found := pattern.search(self._buffer)):
            if on_output:  # but for what may be the beginning of our line
                end = self._buffer.find(_MARK[:1], passed_on)
                on_output(self._buffer[passed_on : end if end >= 0 else None])
                passed_on = end if end >= 0 else len(self._buffer)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise self._error(f"no answer within {timeout:g} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise self._error("QEMU has ended")
            self._buffer += data
        output, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
        if on_output and output[passed_on:]:
            on_output(output[passed_on:])
        return output, found[1].decode()

    def _error(self, what: str) -> QemuError:
        lines = (self._buffer.decode("utf-8", "replace") + self.console()).splitlines()[-30:]
        return QemuError("\n".join([f"{what}; the last lines:", *lines]))


# Snapshots

_SNAPSHOT = "ready"


def _popen(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _snapshot_arguments(work: Path) -> list[str]:
    """Return QEMU's arguments for a monitor, and for a disk image that has the snapshots.

    The guest has no device with that image.
    """
    image = work / "snapshots.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"]
    subprocess.run(command, check=True)
    return [
        "-drive", f"if=none,format=qcow2,file={image}",
        "-qmp", f"unix:{work / 'monitor'},server=on,wait=off",
    ]  # fmt: skip


class Monitor:
    """The monitor of QEMU: its machine protocol (QMP), docs/interop/qmp-spec.txt in QEMU's sources."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()  # the greeting
        self._execute("qmp_capabilities", {})

    def command(self, line: str) -> None:
        """Run a command of the human monitor, one that prints nothing. Raises `QemuError` if it
        prints."""
        if printed := self._execute("human-monitor-command", {"command-line": line}):
            raise QemuError(f"QEMU's {line}: {printed}")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def _execute(self, name: str, arguments: Mapping[str, str]) -> object:
        with suppress(OSError):
            json.dump({"execute": name, "arguments": arguments}, self._file)
            self._file.flush()
            for line in self._file:
                answer = json.loads(line)
                if "error" in answer:
                    raise QemuError(f"QEMU's {name}: {answer['error']['desc']}")
                if "return" in answer:
                    returned: object = answer["return"]
                    return returned
        raise QemuError("QEMU has ended")


# The initramfs


def make_initramfs(archive: Path, files: Mapping[str, Path | bytes], tools: Iterable[str]) -> None:
    """Write an initramfs with ``files``, and with the programs of ``tools`` that the host has."""
    contents: dict[str, Path | bytes] = {}
    for name in tools:
        found = shutil.which(name, path=_PATH)
        if found is None:
            continue
        contents[f"/usr/bin/{name}"] = Path(found)
        contents |= {library: Path(library) for library in libraries(os.path.realpath(found))}
    with tempfile.TemporaryDirectory() as work:
        for name, source in {**contents, **files}.items():
            target = Path(work, name.lstrip("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                target.write_bytes(source)
                target.chmod(0o755)
            else:
                target.symlink_to(source.resolve())
        names = subprocess.run(
            ["find", "-L", ".", "-print0"], cwd=work, capture_output=True, check=True
        )
        with archive.open("wb") as output:
            command = ["cpio", "--null", "--create", "--dereference", "--format=newc", "--quiet"]
            subprocess.run(command, cwd=work, input=names.stdout, stdout=output, check=True)


@functools.cache
def libraries(program: str) -> tuple[str, ...]:
    """Return the paths of the shared libraries that a program needs, and of its loader."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    return tuple(re.findall(r"(?:=> |^\s*)(/\S+)(?= \(0x)", done.stdout, re.MULTILINE))
