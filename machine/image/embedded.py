# SPDX-License-Identifier: GPL-2.0-or-later
"""The embedded kernel: machine/guest/, compiled on first use.

The result is cached as ``$XDG_CACHE_HOME/klpfs/embedded-<hash>/vmlinux``. The hash covers sources,
options and compiler. Processes that start at the same time may build the same kernel; the first
to finish stores it.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from klpfs.machine.image import Image, ImageError, cache_dir, read_exports
from klpfs.machine.image.vmlinux import Vmlinux
from klpfs.modules import abi as abis
from klpfs.modules.kbuild import CFLAGS, INCLUDE, ToolchainError, compiler

GUEST = Path(__file__).resolve().parent.parent / "guest"
"""The sources of the embedded kernel."""
_LINKER_SCRIPT = GUEST / "vmlinux.lds"
_JOBS = 2

_TRACING = {"-pg", "-mfentry", "-mrecord-mcount"}
_LIB_CFLAGS = (*(flag for flag in CFLAGS if flag not in _TRACING), "-fno-builtin")
"""For guest/lib, which is not traced, as in Linux. gcc emits calls to some of its functions."""
_BTF_CFLAGS = ("-gbtf", "-fno-eliminate-unused-debug-types")
_LDFLAGS = (
    "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=sha1", "-Wl,-z,max-page-size=4096",
    "-Wl,--orphan-handling=error", f"-Wl,-T,{_LINKER_SCRIPT}",
)  # fmt: skip


class EmbeddedKernelError(ImageError):
    """The embedded kernel cannot be built. The text says why and what the user can do about it."""


def load(progress: Callable[[str], None] | None = None, abi: str = abis.LATEST) -> Image:
    """Return the image of the embedded kernel. Build it if it is not in the cache.

    ``progress`` is called with each step of the build, ``abi`` is the name of a livepatch API in
    `klpfs.modules.abi`. Raise EmbeddedKernelError, or OSError if the cache is not writable.
    """
    return replace(read(build(progress, abi)), abi=abi)


# -- building -------------------------------------------------------------------------------------


def build(progress: Callable[[str], None] | None = None, abi: str = abis.LATEST) -> Path:
    """Return the path of the built kernel. Parameters and exceptions are those of `load`."""
    report = progress or (lambda step: None)
    sources = sorted(path for path in GUEST.rglob("*") if path.suffix in (".c", ".S"))
    cache = cache_dir.path()
    directory = cache / f"embedded-{_fingerprint(abi)}"
    vmlinux = directory / "vmlinux"
    if vmlinux.exists():
        cache_dir.mark_used(directory)
        return vmlinux
    try:
        cc = compiler()
    except ToolchainError as error:
        raise EmbeddedKernelError(str(error)) from error
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as temporary:
        work = Path(temporary)
        _compile_and_link([*cc, *abis.cflags(abi)], sources, work, report)
        finished = work / directory.name
        finished.mkdir()
        (work / "vmlinux").rename(finished / "vmlinux")
        try:
            finished.rename(directory)
        except OSError:
            if not vmlinux.exists():  # else another process was faster
                raise
    cache_dir.remove_unused()
    return vmlinux


def _fingerprint(abi: str = abis.LATEST) -> str:
    """Return a hash of everything that the built kernel depends on."""
    overlay = abis.include_directory(abi)
    roots = (GUEST, INCLUDE) if overlay is None else (GUEST, INCLUDE, overlay)
    digest = hashlib.sha256(repr((CFLAGS, _LIB_CFLAGS, _BTF_CFLAGS, _LDFLAGS)).encode())
    command = os.environ.get("CC") or "gcc"
    digest.update(f"{command} {_compiler_version(command.split())}".encode())
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.suffix in (".c", ".h", ".S", ".lds"):
                digest.update(f"\0{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def _compiler_version(command: Sequence[str]) -> str:
    """Return the version of the compiler; empty if it does not run, which `compiler` reports."""
    try:
        return subprocess.run(
            [*command, "-dumpfullversion"], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def _first_line(*command: str) -> str:
    lines = _run(command).splitlines()
    return lines[0] if lines else "unknown"


def _run(command: Sequence[str]) -> str:
    """Run a tool in the C locale and return its output. Raise EmbeddedKernelError with it."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise EmbeddedKernelError(
            f"{command[0]!r} is needed to build the embedded kernel and cannot be run "
            f"({error.strerror}): install gcc and binutils."
        ) from error
    if done.returncode:
        raise EmbeddedKernelError(
            f"The embedded kernel does not compile with {command[0]!r}:\n{done.stdout.strip()}"
        )
    return done.stdout


def _compile_and_link(
    cc: Sequence[str], sources: Sequence[Path], work: Path, report: Callable[[str], None]
) -> None:
    linker = _run([*cc, "-print-prog-name=ld"]).strip()
    versions = {
        "CC_VERSION_TEXT": _first_line(*cc, "--version"),
        "LD_VERSION_TEXT": _first_line(linker, "--version"),
    }
    defines = [f'-D{name}="{text}"' for name, text in versions.items()]

    def compile_one(source: Path) -> str:
        name = source.relative_to(GUEST)
        target = work / f"{str(name).replace('/', '-')}.o"
        report(f"CC      {name}")
        _run([*cc, *_flags(source), *defines, "-c", "-o", str(target), str(source)])
        return str(target)

    with ThreadPoolExecutor(_JOBS) as pool:
        try:
            objects = list(pool.map(compile_one, sources))
        except EmbeddedKernelError:
            pool.shutdown(cancel_futures=True)
            raise
    report("LD      vmlinux")
    _run([*cc, "-m64", *_LDFLAGS, "-o", str(work / "vmlinux"), *objects])


def _flags(source: Path) -> list[str]:
    name = source.stem.replace("-", "_")
    flags = list(_LIB_CFLAGS if source.parent.name == "lib" else CFLAGS)
    if source.suffix == ".S":
        flags = [flag for flag in flags if flag not in _TRACING] + ["-D__ASSEMBLY__"]
    if source.name == "btf.c":
        flags += _BTF_CFLAGS
    return [
        *flags, f"-ffile-prefix-map={GUEST}/=machine/guest/",
        f'-DKBUILD_MODNAME="{name}"', f'-DKBUILD_BASENAME="{name}"',
    ]  # fmt: skip


# -- reading --------------------------------------------------------------------------------------

_NOT_IN_KALLSYMS = ("__kstrtab", "__ksymtab_")


def read(path: Path) -> Image:
    """Return the image of a built kernel, read from its file alone."""
    elf = Vmlinux(io.BytesIO(path.read_bytes()))
    symbols = sorted(
        (s for s in elf.symbol_table() if not s.name.startswith(_NOT_IN_KALLSYMS)),
        key=lambda symbol: symbol.addr,
    )
    at = {symbol.name: symbol.addr for symbol in symbols}
    exports = read_exports(elf.read, at["__start___ksymtab"], at["__stop___ksymtab"], False)
    exports |= read_exports(elf.read, at["__start___ksymtab_gpl"], at["__stop___ksymtab_gpl"], True)
    banner = elf.text(at["linux_banner"])
    sites = elf.read_range(at["__start_mcount_loc"], at["__stop_mcount_loc"])
    initcalls = elf.read_range(at["__initcall_start"], at["__initcall_end"])
    services_end = at["__services_end"]
    return Image(
        release=banner.split()[2],
        vermagic=elf.text(at["vermagic"]),
        banner=banner,
        segments=elf.segments(),
        symbols=symbols,
        exports=exports,
        ftrace_sites=sorted(struct.unpack(f"<{len(sites) // 8}Q", sites)),
        btf=elf.data(".BTF"),
        initcalls=[address for (address,) in struct.iter_unpack("<Q", initcalls)],
        build_id=elf.build_id(),
        stubs=frozenset(symbol.addr for symbol in symbols if symbol.addr < services_end),
    )
