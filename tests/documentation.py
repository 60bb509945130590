# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the examples of a Markdown page, in their order, as a reader would who types them in.

- A ``console`` block is a shell session. A line that begins with ``$ `` is typed, and ``> `` continues
  it; what follows is the expected output. In it, ``...`` stands for any text, and alone on a line
  for any number of lines. A command must succeed, unless the next one is ``echo $?``.
- A block in another language whose first line is a comment with the name of a file is that file.
- A ``python`` block without a name is executed. Names live on from block to block.
- A block after ``<!-- skip: next "reason" -->`` is not run.

Blocks in other languages, such as ``text``, are not run.

    python tests/documentation.py PAGE.md     # prints the page with the real output
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from unittest import SkipTest

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

TIMEOUT = 60.0
"""Seconds that a command may take."""
_LANGUAGES = ("console", "python", "c")
_FILE_NAME = re.compile(r"(?:#|//|/\*) ([\w./-]+\.\w+)(?: \*/)?\n")
_ENDING = re.compile(rb"\x01(\d+)\x01\n$")


class Step(NamedTuple):
    """A command, and the output that the page shows."""

    command: str
    expected: list[str]


def steps(session: str) -> list[Step]:
    """Split a session into its commands. Raises ValueError if it does not begin with one."""
    found: list[Step] = []
    typing = False
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], []))
            typing = True
        elif not found:
            raise ValueError(f"output before the first command: {line}")
        elif typing and line.startswith("> "):
            found[-1] = Step(f"{found[-1].command}\n{line[2:]}", [])
        else:
            typing = False
            found[-1].expected.append(line)
    return found


def agrees(expected: list[str], actual: list[str]) -> bool:
    """Return whether the output is the expected one, with ``...`` for any text.

    Blanks before it do not count: they align numbers whose length differs.
    """
    pattern = "".join(
        r"(?:.*\n)*?"
        if line.strip() == "..."
        else ".*?".join(map(re.escape, re.split(r" *\.\.\.", line))) + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None


class Shell:
    """A bash that lives as long as a page, in a directory of its own.

    As root it has a mount namespace in which no other machine is mounted.
    """

    def __init__(self, directory: Path, bin_directory: Path) -> None:
        environment = {
            "PATH": f"{bin_directory}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"),
            "LC_ALL": "C.UTF-8", "COLUMNS": "80", "TERM": "dumb",
        }  # fmt: skip
        if cache := os.environ.get("XDG_CACHE_HOME"):
            environment["XDG_CACHE_HOME"] = cache
        command = ["bash", "--norc", "--noprofile"]
        if os.geteuid() == 0:
            command = ["unshare", "--mount", "--propagation", "private", *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=directory, env=environment, bufsize=0,
        )  # fmt: skip
        if os.geteuid() == 0:
            self.run(f"{_MOUNTS} | xargs -r umount -l")

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if os.geteuid() == 0 and self._process.poll() is None:
                self.run(f"cd /; {_MOUNTS} | xargs -r -n 1 klpfs umount --lazy")
        finally:
            self._process.kill()
            self._process.communicate()

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run a command; return its exit status and the lines that it printed.

        Raises TimeoutError, or EOFError if the shell has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        quoted = shlex.quote(command)
        self._process.stdin.write(f"eval {quoted} </dev/null; printf '\\1%d\\1\\n' $?\n".encode())
        output, end = b"", time.monotonic() + TIMEOUT
        while not (ending := _ENDING.search(output)):
            if not select.select([self._process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{command!r} takes longer than {TIMEOUT:.0f} s; {output!r}")
            piece = self._process.stdout.read(1 << 16)
            if not piece:
                raise EOFError(f"{command!r} has ended the shell; {output!r}")
            output += piece
        text = output[: ending.start()].decode(errors="replace")
        # An interactive shell does not number the lines of its input.
        return int(ending[1]), [
            line.rstrip() for line in re.sub(r"(?m)^bash: line \d+: ", "bash: ", text).splitlines()
        ]


_MOUNTS = "findmnt -rno TARGET -t fuse.klpfs"


class Page:
    """A page whose examples can be run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ran = 0
        self.skipped: list[str] = []
        """The reasons of the blocks that were not run."""
        self._shell: Shell
        self._directory: Path
        self._real: list[tuple[int, int, str]] | None = None
        parsers = [CodeBlockParser(language, self._evaluate) for language in _LANGUAGES]
        self._document = Sybil([*parsers, SkipParser()]).parse(path)

    def run(self, bin_directory: Path) -> None:
        """Run all examples in an empty directory, with the commands of ``bin_directory``.

        Raises SybilFailure at the first one that does not do what the page says.
        """
        with tempfile.TemporaryDirectory(prefix="klpfs-docs-") as directory:
            self._directory = Path(directory)
            with Shell(self._directory, bin_directory) as self._shell:
                for example in self._document.examples():
                    try:
                        example.evaluate()
                    except SkipTest as reason:
                        self.skipped.append(str(reason))

    def update(self, bin_directory: Path) -> str:
        """Like `run`, but return the page with the real output where that is not the expected one."""
        self._real = []
        self.run(bin_directory)
        text: str = self._document.text
        for start, end, session in reversed(self._real):
            text = text[:start] + session + text[end:]
        return text

    def _evaluate(self, example: Example) -> str | None:
        source, language = str(example.parsed), example.region.lexemes["arguments"]
        self.ran += 1
        if language == "console":
            return self._session(example, source)
        if name := _FILE_NAME.match(source):
            file = self._directory / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(source, example.path, "exec"), example.namespace)
        else:
            return "a block that is neither run nor named"
        return None

    def _session(self, example: Example, source: str) -> str | None:
        todo, real, status = steps(source), "", 0
        for step, following in zip(todo, [*todo[1:], None], strict=True):
            # The shell has run a command of ours in between.
            last = f"(exit {status}); " if step.command == "echo $?" else ""
            status, actual = self._shell.run(last + step.command)
            checked = following is not None and following.command == "echo $?"
            right = agrees(step.expected, actual)
            real += "$ " + step.command.replace("\n", "\n> ") + "\n"
            real += "".join(f"{line}\n" for line in (step.expected if right else actual))
            if self._real is None and not right:
                return f"$ {step.command}\n" + "\n".join(
                    difflib.unified_diff(step.expected, actual, "the page", "real", lineterm="")
                )
            if self._real is None and status and not checked:
                return f"$ {step.command}\nexit status {status}"
        if self._real is not None:
            start = self._document.text.index(source, example.start)
            self._real.append((start, start + len(source), real))
        return None


def pages(root: Path) -> Iterator[Path]:
    """Yield the Markdown files of a checkout."""
    yield from sorted(root.glob("*.md"))
    yield from sorted(root.glob("docs/**/*.md"))


if __name__ == "__main__":
    print(Page(Path(sys.argv[1])).update(Path(sys.executable).parent), end="")
