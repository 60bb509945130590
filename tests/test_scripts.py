# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of every script: help, and options that do not exist. Both need nothing installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from klpfs_scripts.command import existing, positive, seconds, whole
from klpfs_scripts.progress import DELAY_SECONDS

SCRIPTS = Path(__file__).parent.parent / "scripts"
EXECUTABLES = [path for path in SCRIPTS.iterdir() if path.is_file() and os.access(path, os.X_OK)]
NAMES = sorted(
    path.name
    for path in EXECUTABLES
    if re.search(r"/help\.sh|\bcommand\.Parser\b", path.read_text())
)
ANSWER_SECONDS = 10
"""Every answer here takes half a second on an idle computer."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of scripts/, with nothing beside it."""
    directory = tmp_path_factory.mktemp("clone")
    shutil.copytree(SCRIPTS, directory / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def run(clone: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the clone from another directory, in which it must leave nothing."""
    elsewhere = clone / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KLPFS")}
    environment |= {"HOME": str(elsewhere), "PYTHONDONTWRITEBYTECODE": "1"}
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        environment.pop(variable, None)
    done = subprocess.run(
        [clone / "scripts" / name, *arguments],
        cwd=elsewhere,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
    )
    assert sorted(path.name for path in clone.iterdir()) == ["elsewhere", "scripts"]
    assert not list(elsewhere.iterdir())
    return done


def test_every_script_has_help() -> None:
    assert {path.name for path in EXECUTABLES} - set(NAMES) <= {"demo"}


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", NAMES)
def test_help(clone: Path, name: str, option: str) -> None:
    done = run(clone, name, option)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.startswith(f"usage: {name} ")
    last = done.stdout.strip().split("\n\n")[-1]
    assert re.match(r"Takes (?s:.*)\b(second|minute|hour)", last), last


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_does_not_exist(clone: Path, name: str) -> None:
    done = run(clone, name, "--nonsense")
    assert done.returncode == 2 and not done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{name}: ") and "--nonsense" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--repetitions", "0"], "'0' is not a whole number above 0"),
        (["stress", "--seconds", "soon"], "'soon' is not a number of seconds above 0"),
        (["fuzz", "--input", "/dev/null"], "--input needs exactly one TARGET"),
        (["consistency", "--kind", "odd"], "invalid choice: 'odd'"),
        (["qemu-run"], "there is no COMMAND to run"),
        (["compare-with-qemu", "nowhere.sh"], "'nowhere.sh' does not exist"),
        (["upstream-selftests", "--modules", "/"], "--modules needs --kernel"),
        (["get-linux-source", "6.1"], "there is no option or argument 6.1"),
    ],
)
def test_what_is_wrong_is_named(clone: Path, arguments: list[str], message: str) -> None:
    done = run(clone, *arguments)
    assert done.returncode == 2 and not done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{arguments[0]}: ") and message in line


def test_arguments_of_options() -> None:
    assert (whole("0"), positive("7"), seconds("0.5")) == (0, 7, 0.5)
    assert existing(str(SCRIPTS)) == SCRIPTS
    for convert, text in ((whole, "-1"), (positive, "1.5"), (seconds, "inf"), (seconds, "nan")):
        with pytest.raises(Exception, match=re.escape(f"'{text}' is not a ")):
            convert(text)


PROGRESS = f"""
import time
from klpfs_scripts.progress import Progress

with Progress(3) as progress:
    progress.step("the second", 2)
    progress.print("a result")
    time.sleep({DELAY_SECONDS} * SLEEP)
    progress.print("another")
"""


@pytest.mark.parametrize(("sleep", "lines"), [(0.1, 0), (1.5, 1)])
def test_progress_is_shown_after_a_while(sleep: float, lines: int) -> None:
    command = [sys.executable, "-c", PROGRESS.replace("SLEEP", str(sleep))]
    begin = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )  # fmt: skip
    assert done.stdout == "a result\nanother\n"
    shown = done.stderr.splitlines()
    if time.monotonic() - begin < 2 * DELAY_SECONDS:
        assert len(shown) == lines
    assert all(re.fullmatch(r"# 2 of 3: the second, \d+ s", line) for line in shown)


def test_progress_on_a_terminal_changes_one_line() -> None:
    """script(1) gives it a terminal."""
    if not shutil.which("script"):
        pytest.skip("there is no script")
    code = PROGRESS.replace("SLEEP", "1.5")
    command = f"{sys.executable} -c '{code}'".replace('"', '\\"').replace("'", '"')
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], capture_output=True, text=True, check=True,
        timeout=60, env={**os.environ, "PYTHONPATH": str(SCRIPTS), "TERM": "xterm"},
    )  # fmt: skip
    assert "2 of 3: the second, 2 s" in done.stdout
    assert "\x1b[2K" in done.stdout  # the line is erased
    assert "another" in done.stdout
