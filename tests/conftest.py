# SPDX-License-Identifier: GPL-2.0-or-later
"""What several tests use: modules built once, and the kernel's own sources where they can be had."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installation import checked_out, run

from klpfs.cli.example import SAMPLES
from klpfs.modules import kbuild

SOURCES = Path(__file__).parent / "modules"


@pytest.fixture(scope="session")
def ko(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``ko("name")``: the module built from name.c in tests/modules/ or modules/samples/;
    ``ko("name", text)``: from text."""
    output = tmp_path_factory.mktemp("ko")
    built: dict[tuple[str, str], Path] = {}

    def build(name: str, text: str | None = None) -> Path:
        key = (name, text or "")
        if key not in built:
            directory = output / str(len(built))
            directory.mkdir()
            source = SOURCES / f"{name}.c"
            if not source.exists():
                source = SAMPLES / f"{name}.c"
            if text is not None:
                source = directory / f"{name}.c"
                source.write_text(text)
            built[key] = kbuild.build([source], directory)[0]
        return built[key]

    return build


@pytest.fixture(scope="module")
def open_directory() -> Iterator[Path]:
    """An empty directory that other users get to; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory(prefix="klpfs-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture(scope="session")
def linux_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of Linux 6.1: $KLPFS_LINUX_SOURCE, or out of Debian's linux-source-6.1; skips where
    there is neither."""
    if given := os.environ.get("KLPFS_LINUX_SOURCE"):
        return Path(given)
    archives = sorted(glob.glob("/usr/src/linux-source-6.1.tar.*"))
    if not archives:
        pytest.skip("no $KLPFS_LINUX_SOURCE and no package linux-source-6.1")
    directory = tmp_path_factory.mktemp("linux")
    wanted = [
        "samples/livepatch",
        "lib/livepatch",
        "tools/testing/selftests/livepatch",
        "kernel/livepatch",
    ]
    command = ["tar", "-xf", archives[-1], "-C", str(directory), "--strip-components=1"]
    command += [f"linux-source-6.1/{path}" for path in wanted]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{archives[-1]} cannot be read: {error}")
    return directory


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, the wheel that is built from it, and what was printed: ``log``."""
    directory = tmp_path_factory.mktemp("distributions")
    source = checked_out(directory / "checkout")
    printed = run(sys.executable, "-m", "build", "--outdir", directory, source, cwd=directory)
    (directory / "log").write_text(printed)
    return directory


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> Path:
    (path,) = distributions.glob("klpfs-*.tar.gz")
    return path


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("klpfs-*.whl")
    return path


@pytest.fixture(scope="session")
def environment(wheel: Path) -> Iterator[Path]:
    """A fresh virtual environment, with the wheel, what it needs, and pytest."""
    with tempfile.TemporaryDirectory(prefix="klpfs-") as directory:
        run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=Path(directory))
        python = Path(directory, "bin/python")
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
        run(*pip, wheel, "pytest", cwd=Path(directory))
        yield Path(directory)
