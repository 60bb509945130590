# SPDX-License-Identifier: GPL-2.0-or-later
"""Debug messages that can be enabled one by one, lib/dynamic_debug.c.

The messages are those of kernel services in Python. Each has the file, line and function of the message in
the kernel's source, so that scripts which select messages by them work here too.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from klpfs.machine.kernel.base import Base
from klpfs.machine.kernel.glob import wildcard
from klpfs.machine.kernel.printk.printk import LOGLEVEL_DEBUG, LOGLEVEL_ERR

_FLAGS = "pmflt_"
_HEADER = "# filename:lineno [module]function flags format\n"
_MAX_WORDS = 9
_UINT_MAX = (1 << 32) - 1
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f", "a": "\a", "e": "\x1b"}
_ESCAPED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\f": "\\f"}


@dataclass
class Site:
    """One ``pr_debug()`` call. ``flags`` holds the letters of ``pmflt`` that are set."""

    file: str
    line: int
    module: str
    function: str
    format: str
    emit: Callable[[str], None]
    current_pid: Callable[[], int]
    flags: set[str] = field(default_factory=set)

    def __call__(self, *arguments: object) -> None:
        """``__dynamic_pr_debug``: log the message if it is enabled. ``arguments`` are those of the format."""
        if "p" in self.flags:
            place = {"m": self.module, "f": self.function, "l": self.line}
            prefix = "".join(f"{text}:" for flag, text in place.items() if flag in self.flags)
            prefix += " " if prefix else ""
            if "t" in self.flags:
                prefix = f"[{self.current_pid()}] {prefix}"
            self.emit(f"{prefix}{self.module}: {self.format % arguments}")

    def __str__(self) -> str:
        flags = "".join(flag for flag in _FLAGS if flag in self.flags) or "_"
        format_ = "".join(_ESCAPED.get(letter, letter) for letter in f"{self.format}\n")
        return f'{self.file}:{self.line} [{self.module}]{self.function} ={flags} "{format_}"'


class DynamicDebug:
    """All debug messages, and the commands of ``dynamic_debug/control``."""

    def __init__(self, base: Base) -> None:
        self._printk = base.printk
        self._sched = base.sched
        self._sites: list[Site] = []

    def site(self, place: str, function: str, format_: str) -> Site:
        """Add a message at ``place`` (``kernel/livepatch/core.c:12``). The format has no newline at its
        end."""
        file, line = place.split(":")
        module = file.split("/")[-2]

        def emit(text: str) -> None:
            self._printk(LOGLEVEL_DEBUG, text)

        def current_pid() -> int:
            return self._sched.current.pid

        site = Site(file, int(line), module, function, format_, emit, current_pid)
        self._sites.append(site)
        # As in the kernel, the messages of a file are sorted by line.
        files = list(dict.fromkeys(other.file for other in self._sites))
        self._sites.sort(key=lambda other: (files.index(other.file), other.line))
        return site

    def control(self) -> str:
        """Return the content of ``control``."""
        return _HEADER + "".join(f"{site}\n" for site in self._sites)

    def execute(self, queries: str, module: str | None = None) -> None:
        """``ddebug_exec_queries``: execute all queries. ``module`` restricts those that name no module.

        Raises OSError(EINVAL) at the end if a query was invalid; the reason is in the log.
        """
        failed: OSError | None = None
        for query in re.split(r"[;\n]", queries):
            query = query.lstrip()
            if query and not query.startswith("#"):
                try:
                    self._execute(query, module)
                except OSError as error:
                    failed = error
        if failed:
            raise failed

    def _execute(self, text: str, module: str | None) -> None:
        with self._logged("tokenize failed"):
            words = _tokenize(text)
        with self._logged("flags parse failed"):
            change = _parse_flags(words[-1])
        with self._logged("query parse failed"):
            query = _Query()
            query.parse(words[:-1])
            query.module = query.module or module
        for site in self._sites:
            if query.matches(site):
                site.flags = change(site.flags)

    @contextmanager
    def _logged(self, summary: str) -> Iterator[None]:
        """Log a _QueryError and ``summary``, and raise OSError(EINVAL) instead."""
        try:
            yield
        except _QueryError as error:
            for line in (str(error), summary):
                if line:
                    self._printk(LOGLEVEL_ERR, f"dyndbg: {line}")
            raise OSError(errno.EINVAL, summary) from None


class _QueryError(Exception):
    """Invalid query. The message is the line that the kernel logs."""


def _tokenize(text: str) -> list[str]:
    """``ddebug_tokenize``: split a query into words, which may be quoted. A # at the beginning of a word
    starts a comment."""
    words: list[str] = []
    while (text := text.lstrip()) and not text.startswith("#"):
        if text[0] in "\"'":
            word, quote, rest = text[1:].partition(text[0])
            if not quote:
                raise _QueryError(f"unclosed quote: {text[1:]}")
        else:
            word = text.split(maxsplit=1)[0]
            rest = text[len(word) + 1 :]
        if len(words) == _MAX_WORDS:
            raise _QueryError(f"too many words, legal max <={_MAX_WORDS}")
        words.append(word)
        text = rest
    if not words:
        raise _QueryError
    return words


def _parse_flags(text: str) -> Callable[[set[str]], set[str]]:
    """``ddebug_parse_flags``: return a function that changes the flags of a message."""
    if text[:1] not in ("+", "-", "="):
        raise _QueryError(f"bad flag-op {text[:1]}, at start of {text}")
    for letter in text[1:]:
        if letter not in _FLAGS:
            raise _QueryError(f"unknown flag '{letter}'")
    named = set(text[1:]) - {"_"}
    match text[0]:
        case "+":
            return lambda flags: flags | named
        case "-":
            return lambda flags: flags - named
    return lambda _flags: set(named)


@dataclass
class _Query:
    """``struct ddebug_query``: conditions for messages; None matches all of them."""

    file: str | None = None
    func: str | None = None
    module: str | None = None
    format: str | None = None
    class_: str | None = None
    first_line: int = 0
    last_line: int = 0

    def parse(self, words: Sequence[str]) -> None:
        """``ddebug_parse_query``. Raises _QueryError."""
        if len(words) % 2:
            raise _QueryError("expecting pairs of match-spec <value>")
        for keyword, value in zip(words[::2], words[1::2], strict=True):
            match keyword:
                case "file":
                    self._set("file", *value.split(":", 1)[:1])
                    _, colon, place = value.partition(":")
                    if colon and re.match(r"[A-Za-z*?]", place):
                        self._set("func", place)
                    elif colon:
                        self._parse_lines(place)
                case "func" | "module":
                    self._set(keyword, value)
                case "class":
                    self._set("class_", value)
                case "format":
                    self._set("format", _unescaped(value))
                case "line":
                    self._parse_lines(value)
                case _:
                    raise _QueryError(f'unknown keyword "{keyword}"')

    def _set(self, what: str, value: str) -> None:
        old = getattr(self, what)
        if old is not None:
            raise _QueryError(f"match-spec:{what.rstrip('_')} val:{old} overridden by {value}")
        setattr(self, what, value)

    def _parse_lines(self, text: str) -> None:
        """``parse_linerange``: parse a line or a range of lines. Raises _QueryError."""
        if self.first_line or self.last_line:
            raise _QueryError("match-spec: line used 2x")
        first, dash, last = text.partition("-")
        self.first_line = self.last_line = _line_number(first)
        if dash:
            self.last_line = _line_number(last) or _UINT_MAX
            if self.last_line < self.first_line:
                raise _QueryError(f"last-line:{self.last_line} < 1st-line:{self.first_line}")

    def matches(self, site: Site) -> bool:
        """``ddebug_change``: return whether the query selects a message. No message here has a class."""
        if self.format is not None:
            anchored = self.format.startswith("^")
            text = f"{site.format}\n"
            if not (text.startswith(self.format[1:]) if anchored else self.format in text):
                return False
        base = site.file.rsplit("/", 1)[-1]
        return (
            self.class_ is None
            and _matches(self.module, site.module)
            and (_matches(self.file, site.file) or _matches(self.file, base))
            and _matches(self.func, site.function)
            and self.first_line <= site.line <= (self.last_line or _UINT_MAX)
        )


def _line_number(text: str) -> int:
    """``parse_lineno``: parse a line number; empty text means 0."""
    if not text:
        return 0
    digits = re.fullmatch(r"\+?0*([0-9]{1,10})\n?", text)
    if not digits or int(digits[1]) > _UINT_MAX:
        raise _QueryError(f"bad line-number: {text}")
    return int(digits[1])


def _matches(pattern: str | None, text: str) -> bool:
    """Return whether ``pattern``, with * and ?, matches ``text``. The pattern None matches everything."""
    return pattern is None or wildcard(pattern).fullmatch(text) is not None


def _unescaped(text: str) -> str:
    """``string_unescape`` with UNESCAPE_SPACE, UNESCAPE_OCTAL and UNESCAPE_SPECIAL."""

    def letter(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code, 8) & 0xFF) if code.isdigit() else _UNESCAPED.get(code, code)

    return re.sub(r"\\([0-7]{1,3}|[nrtvfae\"\\])", letter, text)
