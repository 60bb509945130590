# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel booted in QEMU, with the host's own tools in it: the thing to compare with.

    kernel = debian.kernel()
    with Qemu(kernel.vmlinuz, modules=debian.upstream_modules(kernel)) as booted:
        print(f"a shell after {booted.seconds_to_shell:.1f} s")
        done = booted.run("modprobe livepatch-sample && cat /proc/cmdline")
        print(done.status, done.output, done.seconds)

It is emulated (TCG) unless another accelerator is asked for, with one processor. All it has for a disk is
an initramfs that is made on the fly: the host's bash, coreutils, kmod and so on, with the libraries they
need, and whatever files are asked for. Two serial ports lead out: one is the kernel's console, the other
carries jobs in and what they print out.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PACKAGES = (
    "qemu-system-x86",
    "cpio",
    "kmod",
    "procps",
    "util-linux",
    "gawk",
    "diffutils",
    "findutils",
)
"""What the host needs."""

TOOLS = """
    awk base64 basename bash cat chmod chown cmp comm cp cut date dd depmod diff dirname dmesg echo env expr
    false find fold free getopt grep gawk head id insmod join kill kmod ln ls lsmod md5sum mkdir mkfifo mknod
    mktemp modinfo modprobe mount mv nproc od paste pgrep pkill printf ps pwd readlink realpath rev rm rmdir
    rmmod sed seq setsid sh sha256sum sleep sort stat strings stty sync sysctl tac tail taskset tee test time
    timeout touch tr true truncate uname umount uniq unshare uptime wc which xargs xxd yes
"""
"""The host's programs that the guest has, where the host has them."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MARK = b"\x1eklpfs "
"""Begins our own lines among what a job prints."""

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


class QemuError(Exception):
    """It did not boot, died, or took too long; the message has the end of the console."""


@dataclass(frozen=True)
class Done:
    """A job that ended."""

    status: int
    """As of a shell: 128 and more is a signal."""
    output: str
    """Standard output and standard error."""
    seconds: float
    """By the host's clock."""


class Qemu:
    """A booted kernel; a context manager, at whose end it is switched off.

    ``files``: what it shall have beside the tools, by path; directories with all that is in them. bytes are
    contents. ``modules``: a directory whose modules are in /lib/modules/RELEASE/extra, where modprobe finds
    them. ``tools``: more programs of the host. ``console``: a file that gets what the kernel prints on
    its console. ``append``: more words for the kernel's command line; ``arguments``: for QEMU's.
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
            command = [
                "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                "-accel", accelerator, "-cpu", cpu, "-m", memory,
                "-serial", f"file:{self._console}", "-serial", "stdio",
                "-kernel", str(vmlinuz), "-initrd", str(initramfs),
                "-append", f"console=ttyS0 quiet panic=-1 rdinit=/init {append}".strip(),
                *arguments,
            ]  # fmt: skip
            self.started = time.monotonic()
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except BaseException:
            self._work.cleanup()
            raise
        try:
            self._until("ready", timeout, None)
        except BaseException:
            self.close()
            raise
        self.seconds_to_shell = time.monotonic() - self.started
        """From the start of QEMU, by the host's clock."""

    @property
    def pid(self) -> int:
        """Of QEMU, for its memory and CPU time."""
        return self._process.pid

    def run(
        self, job: str, *, timeout: float = 600, on_output: Callable[[bytes], None] | None = None
    ) -> Done:
        """Run a shell script (bash). ``on_output`` gets what it prints as it comes.

        Raises `QemuError`; of no use afterwards.
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
        """What the kernel has printed on its console."""
        return self._console.read_text("utf-8", "replace").replace("\r\n", "\n")

    def close(self) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._work.cleanup()

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
        """What comes up to our line that begins with ``word``, and the rest of that line."""
        assert self._process.stdout is not None
        pattern = re.compile(re.escape(_MARK + word.encode()) + rb" ?([^\n]*)\n")
        deadline = time.monotonic() + timeout
        told = 0
        while not (found := pattern.search(self._buffer)):
            if on_output:  # what may be the beginning of our line is kept back
                end = self._buffer.find(_MARK[:1], told)
                on_output(self._buffer[told : end if end >= 0 else None])
                told = end if end >= 0 else len(self._buffer)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise self._error(f"no answer within {timeout:g} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise self._error("QEMU has ended")
            self._buffer += data
        output, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
        if on_output and output[told:]:
            on_output(output[told:])
        return output, found[1].decode()

    def _error(self, what: str) -> QemuError:
        lines = (self._buffer.decode("utf-8", "replace") + self.console()).splitlines()[-30:]
        return QemuError("\n".join([f"{what}; the last lines:", *lines]))


# The initramfs


def make_initramfs(archive: Path, files: Mapping[str, Path | bytes], tools: Iterable[str]) -> None:
    """Write an initramfs with ``files`` and those of ``tools`` that the host has."""
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
    """The shared libraries that a program needs, and its loader."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    return tuple(re.findall(r"(?:=> |^\s*)(/\S+)(?= \(0x)", done.stdout, re.MULTILINE))
