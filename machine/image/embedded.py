# SPDX-License-Identifier: GPL-2.0-or-later
"""The embedded kernel: machine/guest/, compiled on first use and kept.

What comes out of the compiler is ``$XDG_CACHE_HOME/klpfs/embedded-<hash>/vmlinux``. The hash is of all that
goes in, so nothing there ever changes, and mounts that start at the same time may make the same file:
one of them wins.
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

from klpfs.machine.image import Image, ImageError, kept, read_exports
from klpfs.machine.image.vmlinux import Vmlinux
from klpfs.modules import abi as abis
from klpfs.modules.kbuild import CFLAGS, INCLUDE, ToolchainError, compiler

GUEST = Path(__file__).resolve().parent.parent / "guest"
"""The sources of the embedded kernel."""
_LINKER_SCRIPT = GUEST / "vmlinux.lds"
_JOBS = 2

_TRACING = {"-pg", "-mfentry", "-mrecord-mcount"}
_LIB_CFLAGS = (*(flag for flag in CFLAGS if flag not in _TRACING), "-fno-builtin")
"""For guest/lib, which is not traced, as lib/ is not in Linux; some of it is what gcc calls by itself."""
_BTF_CFLAGS = ("-gbtf", "-fno-eliminate-unused-debug-types")
_LDFLAGS = (
    "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=sha1", "-Wl,-z,max-page-size=4096",
    "-Wl,--orphan-handling=error", f"-Wl,-T,{_LINKER_SCRIPT}",
)  # fmt: skip


class CompilerError(ImageError):
    """The embedded kernel cannot be built; the text says why and what to do about it."""


def load(progress: Callable[[str], None] | None = None, abi: str = abis.LATEST) -> Image:
    """The embedded kernel, built first if it has to be; ``progress`` is told of every step of that.
    ``abi`` is that of live patching, a name of `klpfs.modules.abi`.

    Raises CompilerError, and OSError if the cache directory cannot be written.
    """
    return replace(read(build(progress, abi)), abi=abi)


# -- building -------------------------------------------------------------------------------------


def build(progress: Callable[[str], None] | None = None, abi: str = abis.LATEST) -> Path:
    """The path of the built kernel. Raises as `load`."""
    say = progress or (lambda step: None)
    sources = sorted(path for path in GUEST.rglob("*") if path.suffix in (".c", ".S"))
    directory = kept.cache_directory() / f"embedded-{_fingerprint(abi)}"
    vmlinux = directory / "vmlinux"
    if vmlinux.exists():
        kept.use(directory)
        return vmlinux
    try:
        cc = compiler()
    except ToolchainError as error:
        raise CompilerError(str(error)) from error
    kept.cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=kept.cache_directory()) as temporary:
        work = Path(temporary)
        _compile_and_link([*cc, *abis.cflags(abi)], sources, work, say)
        finished = work / directory.name
        finished.mkdir()
        (work / "vmlinux").rename(finished / "vmlinux")
        try:
            finished.rename(directory)
        except OSError:
            if not vmlinux.exists():  # else somebody else was faster
                raise
    kept.forget_unused()
    return vmlinux


def _fingerprint(abi: str = abis.LATEST) -> str:
    """A hash of everything that decides what the kernel becomes."""
    overlay = abis.include(abi)
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
    """What ``-dumpfullversion`` says; nothing if that fails, for `compiler` to explain."""
    try:
        return subprocess.run(
            [*command, "-dumpfullversion"], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def _first_line(*command: str) -> str:
    said = _run(command).splitlines()
    return said[0] if said else "unknown"


def _run(command: Sequence[str]) -> str:
    """Run a tool, with messages in English. Raises CompilerError with what it said."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise CompilerError(
            f"The tool {command[0]!r}, which builds the kernel, cannot be run ({error.strerror}): "
            "install gcc and binutils."
        ) from error
    if done.returncode:
        raise CompilerError(
            f"The embedded kernel does not compile with {command[0]!r}:\n{done.stdout.strip()}"
        )
    return done.stdout


def _compile_and_link(
    cc: Sequence[str], sources: Sequence[Path], work: Path, say: Callable[[str], None]
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
        say(f"CC      {name}")
        _run([*cc, *_flags(source), *defines, "-c", "-o", str(target), str(source)])
        return str(target)

    with ThreadPoolExecutor(_JOBS) as pool:
        try:
            objects = list(pool.map(compile_one, sources))
        except CompilerError:
            pool.shutdown(cancel_futures=True)
            raise
    say("LD      vmlinux")
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
    """Take a built kernel apart. Everything that is said of it is read from it."""
    elf = Vmlinux(io.BytesIO(path.read_bytes()))
    kept = (symbol for symbol in elf.symbol_table() if not symbol.name.startswith(_NOT_IN_KALLSYMS))
    symbols = sorted(kept, key=lambda symbol: symbol.addr)
    at = {symbol.name: symbol.addr for symbol in symbols}
    exports = read_exports(elf.read, at["__start___ksymtab"], at["__stop___ksymtab"], False)
    exports |= read_exports(elf.read, at["__start___ksymtab_gpl"], at["__stop___ksymtab_gpl"], True)
    banner = elf.text(at["linux_banner"])
    sites = elf.range(at["__start_mcount_loc"], at["__stop_mcount_loc"])
    initcalls = elf.range(at["__initcall_start"], at["__initcall_end"])
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
