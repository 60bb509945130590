# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel means by a refusal of a live patch, and what to do about it: for `klpfs.checking.check`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from klpfs.machine.kernel.kernel import Kernel

_MOST = 8
"""So many of several symbols are told; there may be hundreds of a name."""


class Reason(NamedTuple):
    """Why a function cannot be patched. ``subject`` is ``object:function``."""

    subject: str
    detail: str


def reasons(kernel: Kernel, lines: Iterable[str]) -> Iterator[Reason]:
    """Of those lines of the log that are about a function."""
    for line in lines:
        for sentence, explain in _SENTENCES:
            found = sentence.search(line)
            if found:
                names = found.groupdict()
                object_ = names.get("object") or "vmlinux"
                object_ = "vmlinux" if object_ == "(null)" else object_
                detail = explain(kernel, names["name"], object_, names.get("sympos", ""))
                yield Reason(f"{object_}:{names['name']}", detail)


def _named(kernel: Kernel, name: str, object_: str) -> list[int]:
    return kernel.symbols.all_named(name, None if object_ == "vmlinux" else object_)


def _places(kernel: Kernel, addresses: list[int]) -> str:
    """What a ``sympos`` counts, with the function before each: that tells which file it is in."""
    places = []
    for i, address in enumerate(addresses[:_MOST], 1):
        before = kernel.symbols.lookup_address(address - 1)
        behind = f", behind {before.symbol.name}" if before else ""
        places.append(f"{i} at {address:#x}{behind}")
    if len(addresses) > _MOST:
        places.append("...")
    return "; ".join(places)


def _no_such_position(kernel: Kernel, name: str, object_: str, sympos: str) -> str:
    found = _named(kernel, name, object_)
    number = "only one" if len(found) == 1 else f"only {len(found)}"
    return f"sympos {sympos}, but there is {number}: {_places(kernel, found)}"


def _ambiguous(kernel: Kernel, name: str, object_: str, _sympos: str) -> str:
    found = _named(kernel, name, object_)
    return f"there are {len(found)}, a sympos has to say which: {_places(kernel, found)}"


def _not_there(kernel: Kernel, name: str, object_: str, _sympos: str) -> str:
    clones = sorted(
        {symbol.name for symbol, _ in kernel.symbols if symbol.name.startswith(f"{name}.")}
    )
    if clones:
        return f"there is none; the compiler made {', '.join(clones[:_MOST])} of it"
    return f"there is none in {object_}: another name, or inlined everywhere"


def _no_site(kernel: Kernel, name: str, object_: str, _sympos: str) -> str:
    found = _named(kernel, name, object_)
    where = f"at {found[0]:#x}, " if len(found) == 1 else ""
    return (
        f"{where}without an ftrace site: it is notrace, or its file is built without them, and what "
        "cannot be traced cannot be patched; patch its callers"
    )


_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[Kernel, str, str, str], str]], ...] = (
    (
        re.compile(
            r"symbol position (?P<sympos>\d+) for symbol '(?P<name>.+)' in object '(?P<object>.+)'"
        ),
        _no_such_position,
    ),
    (
        re.compile(r"unresolvable ambiguity .*symbol '(?P<name>.+)' in object '(?P<object>.+)'"),
        _ambiguous,
    ),
    (re.compile(r"symbol '(?P<name>.+)' not found in symbol table"), _not_there),
    (re.compile(r"failed to find location for function '(?P<name>.+)'"), _no_site),
)
