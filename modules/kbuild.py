# SPDX-License-Identifier: GPL-2.0-or-later
"""The module build, from C sources to relocatable ``.ko`` files.

The steps are those of Kbuild (scripts/Makefile.build, Makefile.modpost, Makefile.modfinal):
compile each source, read the objects, compile the ``struct module`` that follows from them, link.
Intermediate files are in a temporary directory. The result depends only on the sources, headers,
options and compiler: it has no paths and no dates in it.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
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
"""The headers of the embedded kernel, for modules and for the kernel itself."""
_LINKER_SCRIPT = _HERE / "module.lds"
_JOBS = 2


def _string(header: str) -> str:
    found = re.search(r'"(.*)"', (INCLUDE / header).read_text())
    assert found is not None
    return found[1]


RELEASE = _string("generated/utsrelease.h")
"""The release of the embedded kernel, as ``uname -r`` prints it (UTS_RELEASE)."""
VERMAGIC = RELEASE + _string("linux/vermagic.h")
"""The vermagic that a module must have to be loaded without force (VERMAGIC_STRING)."""

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
    # else gcc would turn the loop of memset() into a call of memset()
    "-fno-tree-loop-distribute-patterns",
    "-pg", "-mfentry", "-mrecord-mcount",
    "-Wall", "-Wundef", "-Wno-trigraphs", "-Wno-sign-compare", "-Wno-pointer-sign",
    "-Wno-format-security", "-Wno-format-zero-length", "-Wno-unused-but-set-variable",
    "-Wno-unused-const-variable", "-Wno-frame-address", "-Wno-address-of-packed-member",
    "-Werror=implicit-function-declaration", "-Werror=implicit-int", "-Werror=return-type",
    "-Werror=strict-prototypes", "-Werror=incompatible-pointer-types", "-Werror=date-time",
)  # fmt: skip
"""The compiler options for modules and for the embedded kernel, so that their structs agree."""

LineCallback = Callable[[str], None]


class CompileError(Exception):
    """The sources cannot be built. The text is the output of the tools, unchanged."""


class ToolchainError(Exception):
    """There is no usable compiler. The text says what the user can do about it."""


class _Module(NamedTuple):
    name: str
    sources: tuple[Path, ...]
    directory: Path


def compiler() -> tuple[str, ...]:
    """Return the command that runs the compiler: ``$CC``, or gcc.

    Each command is tested once. Raise ToolchainError if it cannot build for the kernel.
    """
    program, *options = shlex.split(os.environ.get("CC", "")) or ["gcc"]
    if "/" in program:  # it may be run in another directory
        program = os.path.abspath(program)
    command = (program, *options)
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
            f"The C compiler {command[0]!r} does not support -mfentry with -mrecord-mcount, which "
            "live patching needs: install gcc 5 or newer for x86-64 and name it in $CC."
        )
    raise ToolchainError(
        f"The C compiler {command[0]!r} does not work: {tried.stderr.strip() or 'no error message'}"
    )


def build(
    sources: Sequence[Path],
    output: Path | None = None,
    *,
    defines: Mapping[str, str | None] | None = None,
    extra_cflags: Sequence[str] = (),
    debug: bool = False,
    abi: str = abis.LATEST,
    on_step: LineCallback | None = None,
    on_message: LineCallback | None = None,
) -> list[Path]:
    """Build a module from each of ``sources``; return the paths of the ``.ko`` files in order.

    The files are written to the directory ``output``, by default each next to its source.
    ``defines`` are macros by name, None for one without a value. ``debug`` adds debug information.
    ``abi`` is the name of a livepatch API in `klpfs.modules.abi`. ``on_step`` is called with each
    step, in the format of Kbuild, and ``on_message`` with the warnings of the compiler, which by
    default go to stderr.

    The modules can use each other's exports, which ``depends=`` in their modinfo records. If one
    fails, none is written. Raise CompileError, ToolchainError, ValueError for a source that is not
    a C file or for two modules of one name, OSError if the result cannot be written.
    """
    modules = [
        _Module(source.stem, (source,), output if output is not None else source.parent)
        for source in map(Path, sources)
    ]
    return _build(
        modules,
        defines=defines or {},
        extra_cflags=extra_cflags,
        debug=debug,
        abi=abi,
        on_step=on_step,
        on_message=on_message,
    )


def build_module(
    name: str,
    sources: Sequence[Path],
    output: Path,
    *,
    defines: Mapping[str, str | None] | None = None,
    extra_cflags: Sequence[str] = (),
    debug: bool = False,
    abi: str = abis.LATEST,
    on_step: LineCallback | None = None,
    on_message: LineCallback | None = None,
) -> Path:
    """Build the module ``name`` from several sources, as ``name-objs`` does in a Makefile.

    The other parameters and the exceptions are those of `build`.
    """
    modules = [_Module(name, tuple(map(Path, sources)), output)]
    [result] = _build(
        modules,
        defines=defines or {},
        extra_cflags=extra_cflags,
        debug=debug,
        abi=abi,
        on_step=on_step,
        on_message=on_message,
    )
    return result


def _build(
    modules: Sequence[_Module],
    *,
    defines: Mapping[str, str | None],
    extra_cflags: Sequence[str],
    debug: bool,
    abi: str,
    on_step: LineCallback | None,
    on_message: LineCallback | None,
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
        steps.report("MODPOST")
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
    """Runs the commands of a step, two at a time, and reports them in order."""

    def __init__(self, work: Path, report: LineCallback, warn: LineCallback) -> None:
        self._environment = {**os.environ, "TMPDIR": str(work)}
        self._empty = work / "empty"
        self._empty.mkdir()
        for name in ("CPATH", "C_INCLUDE_PATH"):  # gcc uses them even with -nostdinc
            self._environment.pop(name, None)
        self.report = report
        self._warn = warn

    def run(self, commands: Iterable[tuple[str, list[str]]]) -> None:
        """Run all commands, even after one has failed, so that the user sees every error.

        Raise CompileError with the output of those that failed.
        """
        failed = []
        with ThreadPoolExecutor(_JOBS) as pool:
            running = [(line, pool.submit(self._run, command)) for line, command in commands]
            for line, result in running:
                self.report(line)
                status, text = result.result()
                if status:
                    failed.append(text or f"{line}: exit status {status}\n")
                elif text:
                    self._warn(text)
        if failed:
            raise CompileError("".join(failed))

    def _run(self, command: list[str]) -> tuple[int, str]:
        directory = None
        if any(os.path.basename(word).startswith("@") for word in command):
            # gcc passes the name of a source to its compiler, which takes @x for a file of options.
            directory = self._empty
            command = [*command, f"-ffile-prefix-map={directory}=."]
        ran = subprocess.run(
            command, env=self._environment, cwd=directory, stdin=subprocess.DEVNULL,
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
        # gcc uses the last one that matches
        f"-ffile-prefix-map={Path.cwd()}=.",
        f"-ffile-prefix-map={source.parent}/=",
        *flags,
        "-c", "-o", str(target), _argument(source),
    ]  # fmt: skip


def _argument(path: Path) -> str:
    """Return a path as an argument of gcc, which takes ``-x`` for an option and ``@x`` for a file of
    options. See also `_Steps._run`."""
    if path.name.startswith("@"):
        return os.path.abspath(path)
    return str(path) if path.is_absolute() or str(path)[:1].isalnum() else f"./{path}"


def _parts(module: _Module, work: Path) -> list[Path]:
    """Return the objects of a module's sources. With one source, it is the module's own object."""
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
            if not source.stem.isprintable() or set(source.stem) & {'"', "\\"}:
                # it becomes a string in C: KBUILD_BASENAME
                raise ValueError(
                    f"{source}: a character of this name cannot be in that of a module"
                )
        if modpost.modname(module.name) in seen:
            raise ValueError(f"two modules are named {modpost.modname(module.name)}")
        seen.add(modpost.modname(module.name))
        stems = [source.stem for source in module.sources]
        if len(set(stems)) != len(stems):
            raise ValueError(f"two sources of module {module.name} have the same name")


def _install(built: Path, directory: Path) -> Path:
    """Move a built module to ``directory`` atomically; return its path. Raise OSError.

    The directory may belong to another user: no file or link in it is written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / built.name
    fresh = directory / f".{secrets.token_hex(8)}.ko"
    new_only = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(fresh, new_only, 0o666), "wb") as file:
        try:
            file.write(built.read_bytes())
            file.flush()
            fresh.replace(target)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    return target


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
