# SPDX-License-Identifier: GPL-2.0-or-later
"""The module build: C sources in, real relocatable ``.ko`` files out.

The steps are Kbuild's (scripts/Makefile.build, Makefile.modpost, Makefile.modfinal): compile each
source, look at the objects, compile the ``struct module`` that follows from them, link. Everything
between happens in a temporary directory, and the result depends on nothing but the sources, the headers,
the options and the compiler: no path and no date is in it.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from klpfs.modules import abi as abis
from klpfs.modules import modpost

_HERE = Path(__file__).resolve().parent
INCLUDE = _HERE / "include"
"""The headers of the embedded kernel, which modules are compiled against."""
_LINKER_SCRIPT = _HERE / "module.lds"
_JOBS = 2


def _string(header: str) -> str:
    found = re.search(r'"(.*)"', (INCLUDE / header).read_text())
    assert found is not None
    return found[1]


RELEASE = _string("generated/utsrelease.h")
"""What ``uname -r`` says, UTS_RELEASE."""
VERMAGIC = RELEASE + _string("linux/vermagic.h")
"""What a module must say to be loaded without force, VERMAGIC_STRING."""

CFLAGS = (
    "-nostdinc",
    f"-I{INCLUDE}",
    "-include", f"{INCLUDE}/linux/kconfig.h",
    "-include", f"{INCLUDE}/linux/compiler_types.h",
    f"-ffile-prefix-map={INCLUDE}/=include/",
    "-D__KERNEL__",
    "-std=gnu11", "-O2", "-g0", "-m64", "-march=x86-64", "-mcmodel=kernel", "-mno-red-zone",
    "-mgeneral-regs-only", "-mpreferred-stack-boundary=3", "-mskip-rax-setup",
    "-fno-pic", "-fno-pie", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls",
    "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing", "-fno-strict-overflow", "-fno-delete-null-pointer-checks", "-fno-common",
    # memset() must not be made into a call of itself
    "-fno-tree-loop-distribute-patterns",
    "-pg", "-mfentry", "-mrecord-mcount",
    "-Wall", "-Wundef", "-Wno-trigraphs", "-Wno-sign-compare", "-Wno-pointer-sign",
    "-Wno-format-security", "-Wno-format-zero-length", "-Wno-unused-but-set-variable",
    "-Wno-unused-const-variable", "-Wno-frame-address", "-Wno-address-of-packed-member",
    "-Werror=implicit-function-declaration", "-Werror=implicit-int", "-Werror=return-type",
    "-Werror=strict-prototypes", "-Werror=incompatible-pointer-types", "-Werror=date-time",
)  # fmt: skip
"""How modules and the embedded kernel are compiled, so that both mean the same by every struct."""

OnLine = Callable[[str], None]


class CompileError(Exception):
    """The sources do not make a module. The text is the tools' own output, unchanged."""


class ToolchainError(Exception):
    """There is no compiler that can build for the kernel; the text says what to do about it."""


class _Module(NamedTuple):
    name: str
    sources: tuple[Path, ...]
    directory: Path


def compiler() -> tuple[str, ...]:
    """The command that runs the compiler: ``$CC``, or gcc.

    Raises ToolchainError. It is tried out once only.
    """
    command = tuple(shlex.split(os.environ.get("CC", ""))) or ("gcc",)
    _probe(command)
    return command


@functools.cache
def _probe(command: tuple[str, ...]) -> None:
    options = ("-m64", "-pg", "-mfentry", "-mrecord-mcount", "-fno-pic", "-x", "c", "-c")
    try:
        tried = subprocess.run(
            [*command, *options, "-o", os.devnull, "-"],
            input="void f(void) {}\n", capture_output=True, text=True, errors="replace",
            check=False,
        )  # fmt: skip
    except OSError as error:
        raise ToolchainError(
            f"The C compiler {command[0]!r} cannot be run ({error.strerror}): install gcc, "
            "for example with 'apt install gcc', or name it in $CC."
        ) from error
    if tried.returncode == 0:
        return
    if "mfentry" in tried.stderr or "mrecord-mcount" in tried.stderr:
        raise ToolchainError(
            f"The C compiler {command[0]!r} does not support -mfentry with -mrecord-mcount, without "
            "which no function can be patched: install gcc 5 or newer for x86-64 and name it in $CC."
        )
    raise ToolchainError(
        f"The C compiler {command[0]!r} does not work: {tried.stderr.strip() or 'it says nothing'}"
    )


def build(
    sources: Sequence[Path],
    output: Path | None = None,
    *,
    defines: Mapping[str, str | None] | None = None,
    extra_cflags: Sequence[str] = (),
    debug: bool = False,
    abi: str = abis.LATEST,
    on_step: OnLine | None = None,
    on_message: OnLine | None = None,
) -> list[Path]:
    """Build a module of each of ``sources``; returns the ``.ko`` files, in the same order.

    They are put into ``output``, or else each next to its source. ``defines`` are macros (None: with
    no value), ``debug`` adds debug information, ``abi`` is the API of live patching, a name of
    `klpfs.modules.abi`. ``on_step`` is told what is about to be done, as Kbuild prints it, and ``on_message``
    the compiler's warnings (else they go to stderr).

    Modules built together know each other's exports: that is what ``depends=`` comes from.
    If one fails, none is written. Raises CompileError, ToolchainError, ValueError for a name that is
    no C source or that comes twice, and OSError if the result cannot be written.
    """
    modules = [
        _Module(source.stem, (source,), output if output is not None else source.parent)
        for source in map(Path, sources)
    ]
    return _build(modules, defines or {}, extra_cflags, debug, abi, on_step, on_message)


def build_module(
    name: str,
    sources: Sequence[Path],
    output: Path,
    *,
    defines: Mapping[str, str | None] | None = None,
    extra_cflags: Sequence[str] = (),
    debug: bool = False,
    abi: str = abis.LATEST,
    on_step: OnLine | None = None,
    on_message: OnLine | None = None,
) -> Path:
    """Build one module ``name`` of several sources, as ``name-objs`` does in a Makefile.

    Otherwise as `build`.
    """
    modules = [_Module(name, tuple(map(Path, sources)), output)]
    [result] = _build(modules, defines or {}, extra_cflags, debug, abi, on_step, on_message)
    return result


def _build(
    modules: Sequence[_Module],
    defines: Mapping[str, str | None],
    extra_cflags: Sequence[str],
    debug: bool,
    abi: str,
    on_step: OnLine | None,
    on_message: OnLine | None,
) -> list[Path]:
    _check_names(modules)
    cc = (*compiler(), *abis.cflags(abi))
    flags = [*(f"-D{name}" if value is None else f"-D{name}={value}"
               for name, value in defines.items()),
             *(["-g"] if debug else []), *extra_cflags]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="klpfs-build-") as directory:
        work = Path(directory)
        steps = _Steps(work, on_step or (lambda line: None), on_message or _to_stderr)
        objects = {module.name: work / f"{module.name}.o" for module in modules}
        parts = {module.name: _parts(module, work) for module in modules}
        steps.run(
            (f"CC [M]  {part.name}",
             _compile(cc, module.name, source, part, flags))
            for module in modules
            for source, part in zip(module.sources, parts[module.name], strict=True)
        )  # fmt: skip
        steps.run(
            (f"LD [M]  {module.name}.o",
             [*cc, "-m64", "-r", "-nostdlib", "-o", str(objects[module.name]),
              *map(str, parts[module.name])])
            for module in modules
            if parts[module.name] != [objects[module.name]]
        )  # fmt: skip
        steps.say("MODPOST")
        read = [modpost.read(name, path) for name, path in objects.items()]
        if problems := modpost.problems(read):
            raise CompileError("\n".join(problems) + "\n")
        for module in read:
            (work / f"{module.name}.mod.c").write_text(modpost.source(module, read))
        steps.run(
            (f"CC [M]  {name}.mod.o",
             _compile(cc, name, work / f"{name}.mod.c", work / f"{name}.mod.o", flags))
            for name in objects
        )  # fmt: skip
        steps.run(
            (f"LD [M]  {name}.ko",
             [*cc, "-m64", "-r", "-nostdlib", f"-Wl,-T,{_LINKER_SCRIPT}", "-Wl,--build-id=sha1",
              "-o", str(work / f"{name}.ko"), str(path), str(work / f"{name}.mod.o")])
            for name, path in objects.items()
        )  # fmt: skip
        return [_install(work / f"{module.name}.ko", module.directory) for module in modules]


class _Steps:
    """Runs the commands of a step, two at a time, and tells of them in their order."""

    def __init__(self, work: Path, say: OnLine, warn: OnLine) -> None:
        self._environment = {**os.environ, "TMPDIR": str(work)}
        for name in ("CPATH", "C_INCLUDE_PATH"):  # gcc heeds them even with -nostdinc
            self._environment.pop(name, None)
        self.say = say
        self._warn = warn

    def run(self, commands: Iterable[tuple[str, list[str]]]) -> None:
        """Run them all, also after one has failed, so that the user sees every error at once."""
        failed = []
        with ThreadPoolExecutor(_JOBS) as pool:
            running = [(line, pool.submit(self._run, command)) for line, command in commands]
            for line, result in running:
                self.say(line)
                status, text = result.result()
                if status:
                    failed.append(text or f"{line}: exit status {status}\n")
                elif text:
                    self._warn(text)
        if failed:
            raise CompileError("".join(failed))

    def _run(self, command: list[str]) -> tuple[int, str]:
        ran = subprocess.run(
            command, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        return ran.returncode, ran.stdout


def _compile(
    cc: Sequence[str], name: str, source: Path, target: Path, flags: Sequence[str]
) -> list[str]:
    modname = modpost.modname(name)
    basename = modpost.modname(source.stem)
    return [
        *cc, *CFLAGS,
        "-DMODULE", f'-DKBUILD_BASENAME="{basename}"', f'-DKBUILD_MODNAME="{modname}"',
        f"-D__KBUILD_MODNAME=kmod_{modname}",
        # the last that matches counts
        f"-ffile-prefix-map={Path.cwd()}=.",
        f"-ffile-prefix-map={source.parent}/=",
        *flags,
        "-c", "-o", str(target), str(source),
    ]  # fmt: skip


def _parts(module: _Module, work: Path) -> list[Path]:
    """The objects of its sources; the only one of a module of one source is the module's own."""
    if len(module.sources) == 1:
        return [work / f"{module.name}.o"]
    directory = work / f"{module.name}.parts"
    directory.mkdir()
    return [directory / f"{source.stem}.o" for source in module.sources]


def _check_names(modules: Sequence[_Module]) -> None:
    seen: set[str] = set()
    for module in modules:
        for source in module.sources:
            if source.suffix != ".c":
                raise ValueError(f"{source}: not a C source file")
        if modpost.modname(module.name) in seen:
            raise ValueError(f"two modules of the name {modpost.modname(module.name)}")
        seen.add(modpost.modname(module.name))
        stems = [source.stem for source in module.sources]
        if len(set(stems)) != len(stems):
            raise ValueError(f"two sources of one name in module {module.name}")


def _install(built: Path, directory: Path) -> Path:
    """Put it in its place at once: whoever looks sees the old file or the new one."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / built.name
    fresh = directory / f".{built.name}.{os.getpid()}"
    try:
        fresh.write_bytes(built.read_bytes())
        fresh.replace(target)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return target


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
