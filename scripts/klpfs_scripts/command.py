# SPDX-License-Identifier: GPL-2.0-or-later
"""Options, help and errors of a script, the same way for all of them.

Only the standard library is imported here: ``--help`` works, and bad options are refused, before
anything is installed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

USAGE_ERROR = 2
INTERRUPTED = 130


class ScriptError(Exception):
    """The script cannot go on. The message says why, in a sentence."""


class Parser(argparse.ArgumentParser):
    """The options of a script.

    ``description`` is the text of the help, usually the script's docstring; paragraphs that are
    indented keep their lines. ``takes`` says how long the script takes.
    """

    def __init__(self, description: str | None, *, takes: str, usage: str | None = None) -> None:
        super().__init__(
            usage=usage,
            description=description,
            epilog=f"Takes {takes}.",
            formatter_class=_Paragraphs,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with status 2."""
        message = message.replace("unrecognized arguments:", "there is no option or argument")
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see --help\n")


class _Paragraphs(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            paragraph
            if paragraph.startswith(" ")
            else textwrap.fill(" ".join(paragraph.split()), width)
            for paragraph in paragraphs
        )


def whole(text: str) -> int:
    """Return the whole number that an option's argument is, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """Return the whole number above 0 that an option's argument is."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """Return the time that an option's argument is, which is above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value


def existing(text: str) -> Path:
    """Return the path of the file or directory that an option's argument is."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"'{text}' does not exist")
    return path


def say(text: str) -> None:
    """Print a line about what the script does next, on standard error."""
    print(f"# {text}", file=sys.stderr, flush=True)


def run(main: Callable[[], int], *, error_status: int = 1) -> NoReturn:
    """Exit with the status that ``main`` returns.

    A `ScriptError` is printed as one message, and the status is ``error_status``.
    """
    try:
        status = main()
    except ScriptError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        status = error_status
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # the reader of the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
