# SPDX-License-Identifier: GPL-2.0-or-later
"""The sdist, the wheel and what they install, each made and used as a user would."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from importlib.metadata import entry_points, requires
from pathlib import Path, PurePosixPath

import pytest
from installation import (
    REPOSITORY,
    SECONDS,
    SHIPPED,
    checked_out,
    run,
    shipped_files,
    tracked_files,
)

SAMPLE = REPOSITORY / "modules/samples/livepatch-sample.c"

pytestmark = pytest.mark.timeout(2 * SECONDS)
needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")


# The two distributions


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_all_of_a_machine_is_in_the_wheel(wheel: Path) -> None:
    wanted = shipped_files()
    assert wanted - wheel_names(wheel) == set()
    assert "klpfs/machine/guest/vmlinux.lds" in wanted
    assert "klpfs/modules/include/linux/livepatch.h" in wanted


def test_nothing_else_is(wheel: Path) -> None:
    others = wheel_names(wheel) - shipped_files()
    assert all(re.match(r"klpfs-[0-9.]+\.dist-info/", name) for name in others), others
    assert any(name.endswith("/LICENSE") for name in others)


def test_the_wheel_of_a_checkout_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """``pip install .`` follows the links that an sdist does not have."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path)
    run(*pip, checked_out(tmp_path / "checkout"), cwd=tmp_path)
    (direct,) = tmp_path.glob("*.whl")
    assert wheel_names(direct) == wheel_names(wheel)


def test_all_that_git_has_is_in_the_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not any(member.issym() for member in members)
    paths = (PurePosixPath(member.name) for member in members if member.isfile())
    names = {str(path.relative_to(path.parts[0])) for path in paths}
    rest = {
        name for name in tracked_files()
        if name.split("/")[0] not in (*SHIPPED, ".ci", ".gitignore")
    }  # fmt: skip
    made = {"PKG-INFO", *(name for name in names if name.startswith("klpfs.egg-info/"))}
    assert names - made == shipped_files() | rest


def test_building_them_warns_of_nothing(distributions: Path) -> None:
    log = (distributions / "log").read_text()
    assert "Successfully built" in log
    assert re.findall(r"(?i)^.*(?:\bwarning\b|deprecat).*$", log, re.MULTILINE) == []


def test_what_an_index_shows(wheel: Path) -> None:
    (name,) = (name for name in wheel_names(wheel) if name.endswith("/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    assert metadata["License-Expression"] == "GPL-2.0-or-later"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    for name in ("pyfuse3", "trio", "unicorn"):  # klpfs uses private parts of these
        (required,) = (
            line for line in metadata.get_all("Requires-Dist", []) if line.startswith(name)
        )
        assert re.search(r"<\d", required), required


# What they install


def test_nothing_but_klpfs_is_in_site_packages(environment: Path) -> None:
    (record,) = environment.glob("lib/python3*/site-packages/klpfs-*.dist-info/RECORD")
    installed = {line.split(",")[0] for line in record.read_text().splitlines()}
    tops = {name.split("/")[0] for name in installed if not name.startswith("../")}
    assert tops == {"klpfs", record.parent.name}
    assert {name for name in installed if name.startswith("../")} == {"../../../bin/klpfs"}


@needs_fuse
def test_a_first_session(environment: Path, tmp_path: Path) -> None:
    """The kernel is compiled from the sources in the wheel, and a module with its headers."""
    klpfs = environment / "bin/klpfs"
    machine = tmp_path / "machine"
    machine.mkdir()
    shutil.copy(SAMPLE, tmp_path)
    assert re.fullmatch(r"klpfs, version [0-9.]+\n", run(klpfs, "--version", cwd=tmp_path))
    run(klpfs, "build", "livepatch-sample.c", cwd=tmp_path)
    run(klpfs, "mount", "machine", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    try:
        run(klpfs, "insmod", "-m", "machine", "livepatch-sample.ko", cwd=tmp_path)
        assert (machine / "proc/cmdline").read_text() == "this has been live patched\n"
    finally:
        run(klpfs, "umount", "--lazy", "machine", cwd=tmp_path)


@needs_fuse
def test_a_project_with_the_same_names(environment: Path, tmp_path: Path) -> None:
    """Modules of a project hide neither klpfs's own nor those that it needs."""
    for name in ("machine", "modules", "click", "trio"):
        (tmp_path / f"{name}.py").write_text("answer = 42\n")
    (tmp_path / "test_it.py").write_text("""
from machine import answer
from modules import answer as another

def test_it(klpfs_machine):
    assert klpfs_machine.read("proc/version").startswith("Linux version")
""")
    assert "1 passed" in run(environment / "bin/pytest", "-q", cwd=tmp_path)
    python = environment / "bin/python"
    assert "1 passed" in run(python, "-m", "pytest", "-q", cwd=tmp_path)
    assert "klpfs, version" in run(python, "-m", "klpfs", "--version", cwd=tmp_path)


def test_its_types_are_seen(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import klpfs.pytest_plugin

def test_it(klpfs_machine: klpfs.pytest_plugin.Machine) -> None:
    reveal_type(klpfs_machine.dmesg())
""")
    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache")
    checked = run(
        *mypy, "--python-executable", environment / "bin/python", "test_it.py", cwd=tmp_path
    )
    assert 'Revealed type is "list[str]"' in checked.replace("builtins.", "")


@needs_fuse
def test_the_tests_of_the_sdist(sdist: Path, tmp_path: Path) -> None:
    """Those of a few files, which use the helpers and the modules in tests/; all are found."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    few = ("btf", "elf", "kmsg", "nodes", "parameters_in_use", "sysctl")
    tests = [f"tests/test_{name}.py" for name in few]
    passed = run(*pytest_, *tests, cwd=unpacked, PYTHONPATH=str(unpacked))
    assert re.search(r"^\d+ passed", passed, re.MULTILINE), passed
    collected = run(*pytest_, "--collect-only", cwd=unpacked, PYTHONPATH=str(unpacked))
    files = {line.split("::")[0] for line in collected.splitlines() if "::" in line}
    assert files == {f"tests/{path.name}" for path in REPOSITORY.glob("tests/test_*.py")}


# The sources


def test_every_source_file_says_its_licence() -> None:
    sources = [
        name for name in tracked_files() if name.split("/")[0] in (*SHIPPED, "tests", "scripts")
    ]
    for name in sources:
        if Path(name).suffix in (".py", ".c", ".h", ".S", ".lds", ".sh"):
            head = "\n".join((REPOSITORY / name).read_text().splitlines()[:3])
            assert "SPDX-License-Identifier: GPL-2.0" in head, name


def test_the_command_and_the_plugin_are_installed() -> None:
    scripts = {point.name: point.value for point in entry_points(group="console_scripts")}
    assert scripts["klpfs"] == "klpfs.cli:main"
    plugins = {point.name: point.value for point in entry_points(group="pytest11")}
    assert plugins["klpfs"] == "klpfs.pytest_plugin"
    assert (Path(sys.executable).parent / "klpfs").exists()


def test_what_is_imported_is_required() -> None:
    """By the name that a distribution has where it differs from the module's."""
    names = {"elftools": "pyelftools", "_pytest": "pytest"}
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in requires("klpfs") or []}  # type: ignore[index]
    for name in tracked_files():
        if name.split("/")[0] in SHIPPED and name.endswith(".py"):
            for module in imports(ast.parse((REPOSITORY / name).read_text())):
                known = (
                    module in sys.stdlib_module_names or module == "klpfs" or module == "__future__"
                )
                assert known or names.get(module, module) in declared, (name, module)


def imports(tree: ast.AST) -> set[str]:
    """The first names of the modules that a source file imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
