# SPDX-License-Identifier: GPL-2.0-or-later
"""README and documentation: the examples are run as printed, links lead somewhere, names exist."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import documentation
import pytest
from documentation import Page, agrees, steps
from installation import REPOSITORY, SECONDS, run
from markdown_it import MarkdownIt
from markdown_it.token import Token

from klpfs.cli import main

PAGES = {str(path.relative_to(REPOSITORY)): path for path in documentation.pages(REPOSITORY)}
TOOLS = ("unshare", "findmnt", "insmod", "modprobe", "modinfo")
"""Programs of the host that the examples, or their runner, use."""

NOT_RUN = {
    "downloads a kernel": 1,
    "is interactive": 1,
    "needs a distribution's kernel": 3,
    "takes minutes, and needs QEMU": 1,
    "takes minutes, and writes a picture": 1,
    "the test has its own environment, with the wheel": 1,
}
"""The examples that are not run: how many there are for each reason."""

pytestmark = pytest.mark.timeout(2 * SECONDS)


# -- examples -------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")
@pytest.mark.parametrize("name", PAGES)
def test_the_examples_of(name: str, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    for tool in TOOLS:
        if not shutil.which(tool):
            pytest.skip(f"this host has no {tool}")
    Page(PAGES[name]).run(environment / "bin")


def test_which_examples_are_not_run() -> None:
    reasons = Counter(
        reason
        for path in PAGES.values()
        for reason in re.findall(r'(?m)^<!-- skip: next "(.*)" -->', path.read_text())
    )
    assert reasons == NOT_RUN
    for path in PAGES.values():
        assert "skip: start" not in path.read_text()


def test_the_runner_splits_a_session() -> None:
    session = "$ cat <<E\n> one\n> E\none\n$ true  # nothing\n$ ls\n> a file\n"
    assert steps(session) == [
        ("cat <<E\none\nE", ["one"]),
        ("true  # nothing", []),
        ("ls\na file", []),
    ]
    with pytest.raises(ValueError, match="before the first"):
        steps("output\n$ true\n")


@pytest.mark.parametrize(
    ("expected", "actual", "result"),
    [
        ([], [], True),
        ([], ["a"], False),
        (["a"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["a.c"], ["abc"], False),
        (["in ...s"], ["in 1.2s"], True),
        (["in ...s"], ["in 1", "2s"], False),
        (["a", "...", "b"], ["a", "x", "y", "b"], True),
        (["a", "...", "b"], ["a", "b"], True),
        (["...", "b"], ["a", "b", "c"], False),
    ],
)
def test_the_runner_compares(expected: list[str], actual: list[str], result: bool) -> None:
    assert agrees(expected, actual) is result


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```console\n$ echo 1\n2\n```\n", "-2\n\\+1"),
        ("```console\n$ echo 1\n```\n", "\\+1"),
        ("```console\n$ false\n```\n", "exit status 1"),
        ("```console\n$ false\n$ echo $?\n0\n```\n", "-0\n\\+1"),
        ("```python\nassert False\n```\n", "^$"),
        ("```c\nint i;\n```\n", "neither run nor named"),
    ],
)
def test_the_runner_finds(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError, match=complaint):
        Page(tmp_path / "page.md").run(Path(sys.executable).parent)


def test_the_runner_counts(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        '# A page\n<!-- skip: next "is a test" -->\n```console\n$ false\n```\n'
        "```python\n# a/file.py\n```\n```text\nneither\n```\n"
        "```python\nname = 1\n```\n```python\nassert name == 1\n```\n"
    )
    page = Page(tmp_path / "page.md")
    page.run(Path(sys.executable).parent)
    assert (page.ran, page.skipped) == (3, ["is a test"])


# -- links ----------------------------------------------------------------------------------------


def tokens(path: Path) -> Iterator[Token]:
    for token in MarkdownIt().enable("table").parse(path.read_text()):
        yield token
        yield from token.children or ()


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub and MyST make of the headings of a page."""
    found: set[str] = set()
    heading = False
    for token in tokens(path):
        if token.type == "inline" and heading:
            text = "".join(child.content for child in token.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
        heading = token.type == "heading_open"
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of(name: str) -> None:
    page = PAGES[name]
    for token in tokens(page):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not target or re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def test_the_documentation_builds(tmp_path: Path) -> None:
    """Without a warning: links, anchors and references of Sphinx among them."""
    pytest.importorskip("sphinx")
    command: list[str | Path] = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-d", tmp_path / "doctrees"]
    run(*command, REPOSITORY / "docs", tmp_path / "html", cwd=tmp_path)
    pages = {path: path.read_text() for path in tmp_path.glob("html/**/*.html")}
    assert len(pages) > 15
    for path, text in pages.items():
        assert not re.search(r"\.\. [\w-]+::", text), f"{path} shows a directive as text"


# -- names ----------------------------------------------------------------------------------------


def code(path: Path) -> Iterator[str]:
    """What is marked as code in the text of a page."""
    for token in tokens(path):
        if token.type == "code_inline":
            yield token.content


@pytest.mark.parametrize("name", PAGES)
def test_the_files_and_functions_of(name: str) -> None:
    """A path of the repository exists. In `file.py:name` the file defines the name."""
    if name == "CHANGELOG.md":  # it tells of what was
        return
    tops = ("klpfs", "machine", "modules", "scripts", "tests", "docs")
    for text in code(PAGES[name]):
        found = re.match(rf"(?:\./)?((?:{'|'.join(tops)})/[\w./-]*\w)(?::([\w.]+))?(?: |$)", text)
        if found is None or text.startswith("machine/") and "." not in text and ":" not in text:
            continue  # a file of the mount, most likely
        path = REPOSITORY / found[1]
        assert path.exists(), text
        for part in (found[2] or "").split("."):
            if part:
                definition = rf"^\s*(?:async )?(?:def|class) {part}\b|^\s*{part}\b.* =|[ *]{part}\("
                assert re.search(definition, path.read_text(), re.MULTILINE), text


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of(name: str) -> None:
    """Subcommands and options of klpfs exist, in blocks that are not run and in the text too."""
    context = click.Context(main)
    for line in re.findall(r"(?:`|\$ )(klpfs [^`\n]*)", PAGES[name].read_text()):
        words = line.split(" -- ")[0].split("#")[0].split()
        names = [word for word in words[1:] if not word.startswith("-")]
        if not names or not re.fullmatch("[a-z]+", names[0]):
            continue
        command = main.get_command(context, names[0])
        assert command is not None, line
        known = {
            option for group in (command, main) for each in group.params for option in each.opts
        }
        for word in words[1:]:
            if re.match("--?[a-z]", word) and names[0] != "run":
                assert word.split("=")[0] in known, line


@pytest.mark.parametrize("name", PAGES)
def test_the_scripts_of(name: str) -> None:
    for script in set(re.findall(r"(?<![\w/])(?:\./)?(scripts/[\w-]+)", PAGES[name].read_text())):
        path = REPOSITORY / script
        if name != "CHANGELOG.md" and not path.is_dir():
            assert path.is_file() or path.with_suffix(".py").is_file(), script
