# SPDX-License-Identifier: GPL-2.0-or-later
"""Debug messages that can be switched on one by one, lib/dynamic_debug.c.

The sites are those of kernel services in Python. They carry the place that the kernel has them at, so
that a script which selects them by file, function or line works here too.
"""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from machine.kernel import printk as log
from machine.kernel.printk import Printk

_FLAGS = "pmflt"
_HEADER = "# filename:lineno [module]function flags format\n"


@dataclass
class Site:
    """One ``pr_debug``. ``flags``: those of ``pmflt`` that are set."""

    file: str
    line: int
    module: str
    function: str
    format: str
    emit: Callable[[str], None]
    flags: str = ""

    def __call__(self, *arguments: object) -> None:
        """Log, if the site is on. The arguments are those of the format."""
        if "p" in self.flags:
            prefix = ""
            if "m" in self.flags:
                prefix += f"{self.module}:"
            if "f" in self.flags:
                prefix += f"{self.function}:"
            if "l" in self.flags:
                prefix += f"{self.line}:"
            prefix += " " if prefix else ""
            self.emit(f"{prefix}{self.module}: {self.format % arguments}")

    def __str__(self) -> str:
        flags = "".join(flag for flag in _FLAGS if flag in self.flags) or "_"
        return (
            f"{self.file}:{self.line} [{self.module}]{self.function} ={flags} "
            f'"{_escaped(self.format)}\\012"'
        )


class DynamicDebug:
    """All sites, and the language of ``dynamic_debug/control``."""

    def __init__(self, printk: Printk) -> None:
        self._printk = printk
        self._sites: list[Site] = []

    def site(self, place: str, function: str, format_: str) -> Site:
        """A new site at ``place`` (``kernel/livepatch/core.c:12``). The format has no newline."""
        file, line = place.split(":")
        module = file.split("/")[-2]

        def emit(text: str) -> None:
            self._printk(log.DEBUG, text)

        site = Site(file, int(line), module, function, format_, emit)
        self._sites.append(site)
        return site

    def control(self) -> str:
        """What reading ``control`` gives."""
        return _HEADER + "".join(f"{site}\n" for site in self._sites)

    def execute(self, commands: bytes) -> None:
        """What writing ``control`` does (``ddebug_exec_queries``). Raises OSError(EINVAL)."""
        failed = False
        for command in re.split(r"[;\n]", commands.split(b"\0")[0].decode("latin-1")):
            command = command.strip()
            if command and not command.startswith("#"):
                try:
                    self._execute(command)
                except ValueError:
                    failed = True
                    self._printk(log.ERR, f"dyndbg: bad query: {command}")
        if failed:
            raise OSError(errno.EINVAL, "bad dynamic debug query")

    def _execute(self, command: str) -> None:
        *words, change = shlex.split(command)
        if len(words) % 2:
            raise ValueError("keyword without a value")
        parsed = re.fullmatch(r"([+=-])([pmflt]*|_)", change)
        if not parsed:
            raise ValueError("bad flags")
        operation, flags = parsed[1], parsed[2].replace("_", "")
        queries = dict(zip(words[::2], words[1::2], strict=True))
        for site in self._sites:
            if all(_matches(site, keyword, value) for keyword, value in queries.items()):
                old = set(site.flags)
                new = {"+": old | set(flags), "-": old - set(flags), "=": set(flags)}[operation]
                site.flags = "".join(sorted(new))


def _matches(site: Site, keyword: str, value: str) -> bool:
    match keyword:
        case "file":
            base = site.file.rsplit("/", 1)[-1]
            name, _, rest = value.partition(":")
            if rest and not _matches(site, "line" if rest[0].isdigit() else "func", rest):
                return False
            return fnmatchcase(site.file, name) or fnmatchcase(base, name)
        case "func":
            return fnmatchcase(site.function, value)
        case "module":
            return fnmatchcase(site.module, value)
        case "format":
            text = value.removeprefix("^")
            return site.format.startswith(text) if value.startswith("^") else text in site.format
        case "line":
            first, dash, last = value.partition("-")
            low = int(first or 0)
            return low <= site.line <= (int(last) if last else (1 << 31) if dash else low)
    raise ValueError(f"unknown keyword {keyword}")


def _escaped(text: str) -> str:
    return re.sub(r'[\t\r\n"]', lambda found: f"\\{ord(found[0]):03o}", text)
