# SPDX-License-Identifier: GPL-2.0-or-later
"""Explanations of the livepatch core's error messages, for `klpfs.checking.check`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from klpfs.machine.kernel.kernel import Kernel

_MAX_LISTED = 8
"""The number of symbols that are listed; hundreds may share one name."""


class Reason(NamedTuple):
    """Why a function cannot be patched. ``subject`` is ``object:function``."""

    subject: str
    detail: str


def reasons(kernel: Kernel, lines: Iterable[str]) -> Iterator[Reason]:
    """Yield the reason for each line of the log that reports a function which cannot be patched."""
    for line in lines:
        for pattern, explain in _MESSAGES:
            found = pattern.search(line)
            if found:
                names = found.groupdict()
                object_ = names.get("object") or "vmlinux"
                object_ = "vmlinux" if object_ == "(null)" else object_
                detail = explain(kernel, names["name"], object_, names.get("sympos", ""))
                yield Reason(f"{object_}:{names['name']}", detail)


def _addresses(kernel: Kernel, name: str, object_: str) -> list[int]:
    return kernel.symbols.all_named(name, None if object_ == "vmlinux" else object_)


def _list_positions(kernel: Kernel, addresses: list[int]) -> str:
    """Return each ``sympos`` with its address and the function before it.

    The function before it helps to identify the source file of the symbol.
    """
    positions = []
    for i, address in enumerate(addresses[:_MAX_LISTED], 1):
        previous = kernel.symbols.lookup_address(address - 1)
        after = f", after {previous.symbol.name}" if previous else ""
        positions.append(f"{i} at {address:#x}{after}")
    if len(addresses) > _MAX_LISTED:
        positions.append("...")
    return "; ".join(positions)


def _no_such_position(kernel: Kernel, name: str, object_: str, sympos: str) -> str:
    found = _addresses(kernel, name, object_)
    number = "only one symbol has" if len(found) == 1 else f"only {len(found)} symbols have"
    return f"sympos is {sympos}, but {number} this name: {_list_positions(kernel, found)}"


def _ambiguous(kernel: Kernel, name: str, object_: str, _sympos: str) -> str:
    found = _addresses(kernel, name, object_)
    listed = _list_positions(kernel, found)
    return f"{len(found)} symbols have this name; set sympos to choose one: {listed}"


def _not_found(kernel: Kernel, name: str, object_: str, _sympos: str) -> str:
    clones = sorted(
        {symbol.name for symbol, _ in kernel.symbols if symbol.name.startswith(f"{name}.")}
    )
    if clones:
        return f"no such symbol; the compiler turned it into {', '.join(clones[:_MAX_LISTED])}"
    return f"no such symbol in {object_}: the name is wrong, or it is inlined everywhere"


def _no_site(kernel: Kernel, name: str, object_: str, _sympos: str) -> str:
    found = _addresses(kernel, name, object_)
    where = f" at {found[0]:#x}" if len(found) == 1 else ""
    return (
        f"the function{where} has no ftrace site and cannot be patched: it is notrace, or its file "
        "is built without ftrace; patch its callers instead"
    )


_MESSAGES: tuple[tuple[re.Pattern[str], Callable[[Kernel, str, str, str], str]], ...] = (
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
    (re.compile(r"symbol '(?P<name>.+)' not found in symbol table"), _not_found),
    (re.compile(r"failed to find location for function '(?P<name>.+)'"), _no_site),
)
