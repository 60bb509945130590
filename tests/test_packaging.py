# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed: everything that a machine is made of, and nothing else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHIPPED = ("klpfs", "machine", "modules")
"""The directories of the repository that are installed, all as part of the package klpfs."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel, built from what git would check out."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    tracked = tracked_files()
    for name in tracked:
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy, follow_symlinks=False)
    # With the setuptools that pip would get; where pip cannot, that is no fault of ours.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(directory)]
    command.append(str(source))
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    if done.returncode and re.search("No matching distribution|connection|network", done.stderr):
        pytest.skip(f"pip gets no setuptools: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (built,) = directory.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def tracked_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no checkout")
    return [
        name for name in listed.stdout.split("\0") if name and os.path.lexists(REPOSITORY / name)
    ]


def test_all_of_a_machine_is_in_the_wheel(wheel: list[str]) -> None:
    wanted = {installed_name(name) for name in tracked_files() if name.split("/")[0] in SHIPPED}
    wanted -= {"klpfs/machine", "klpfs/modules"}  # links to the directories
    assert wanted - set(wheel) == set()
    assert any(name.endswith("vmlinux.lds") for name in wanted)
    assert "klpfs/modules/include/linux/livepatch.h" in wanted


def installed_name(name: str) -> str:
    """Return where the wheel has a file of the repository."""
    return name if name.startswith("klpfs/") else f"klpfs/{name}"


def test_nothing_else_is(wheel: list[str]) -> None:
    others = {name for name in wheel if name.split("/")[0] != "klpfs"}
    assert all(re.match(r"klpfs-[0-9.]+\.dist-info/", name) for name in others), others
    assert any(name.endswith("/LICENSE") for name in others)


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
