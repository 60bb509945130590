# SPDX-License-Identifier: GPL-2.0-or-later
"""The language of dynamic_debug/control and its errors: lib/dynamic_debug.c."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from klpfs.machine.kernel.printk.dyndbg import DynamicDebug


class Log:
    """Records the printed lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, _level: int, line: str) -> None:
        self.lines.append(line)


class Idle:
    """A scheduler with one task."""

    class current:
        pid = 7


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def debug(log: Log) -> DynamicDebug:
    debug = DynamicDebug(cast(Any, SimpleNamespace(printk=log, sched=Idle())))
    for line, function, text in (
        (10, "klp_enable", "enabling %s"), (20, "klp_disable", "disabling %s"), (30, "try_switch", "%s: no")
    ):  # fmt: skip
        debug.site(f"kernel/livepatch/core.c:{line}", function, text)
    return debug


def on(debug: DynamicDebug) -> list[str]:
    """Return the functions whose messages are enabled."""
    return [site.function for site in debug._sites if "p" in site.flags]


@pytest.mark.parametrize(
    ("query", "functions"),
    [
        ("+p", "klp_enable klp_disable try_switch"),
        ("file core.c +p", "klp_enable klp_disable try_switch"),
        ("file kernel/live*/core.? +p", "klp_enable klp_disable try_switch"),
        ("file core.c:klp_* +p", "klp_enable klp_disable"),
        ("file core.c:11-20 +p", "klp_disable"),
        ("file core.h +p", ""),
        ("func klp_enable +p", "klp_enable"),
        ("func [k]lp_enable +p", ""),  # a wildcard is * or ?, and nothing else
        ("module livepatch line 20 +p", "klp_disable"),
        ("line 20- +p", "klp_disable try_switch"),
        ("line -20 +p", "klp_enable klp_disable"),
        ('format "ing %s" +p', "klp_enable klp_disable"),
        ("format ^disabling +p", "klp_disable"),
        (r'format "no\n" +p', "try_switch"),
        ("class none +p", ""),
        ("+p; func klp_disable -p", "klp_enable try_switch"),
        ("# +p\n  +pfl # all of them\nline 10 =_", "klp_disable try_switch"),
    ],
)
def test_queries(debug: DynamicDebug, query: str, functions: str) -> None:
    debug.execute(query)
    assert on(debug) == functions.split()


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("nonsense", ["bad flag-op n, at start of nonsense", "flags parse failed"]),
        ("func x +q", ["unknown flag 'q'", "flags parse failed"]),
        ("func +p", ["expecting pairs of match-spec <value>", "query parse failed"]),
        ("word x +p", ['unknown keyword "word"', "query parse failed"]),
        ("func a func b +p", ["match-spec:func val:a overridden by b", "query parse failed"]),
        ("line 1 line 2 +p", ["match-spec: line used 2x", "query parse failed"]),
        ("line x +p", ["bad line-number: x", "query parse failed"]),
        ("line 5-4 +p", ["last-line:4 < 1st-line:5", "query parse failed"]),
        ('func "a +p', ["unclosed quote: a +p", "tokenize failed"]),
        ("1 2 3 4 5 6 7 8 9 +p", ["too many words, legal max <=9", "tokenize failed"]),
    ],
)
def test_what_cannot_be_understood(
    debug: DynamicDebug, log: Log, query: str, lines: list[str]
) -> None:
    with pytest.raises(OSError, match="failed"):
        debug.execute(f"{query}\nfunc klp_enable +p")
    assert log.lines == [f"dyndbg: {line}" for line in lines]
    assert on(debug) == ["klp_enable"]  # the other query was executed


def test_a_message_with_all_that_can_stand_before_it(debug: DynamicDebug, log: Log) -> None:
    enabling = debug._sites[0]
    enabling("a")
    debug.execute("func klp_enable =pmflt")
    enabling("b")
    debug.execute("func klp_enable -mt")
    enabling("c")
    assert log.lines == [
        "[7] livepatch:klp_enable:10: livepatch: enabling b",
        "klp_enable:10: livepatch: enabling c",
    ]
    assert debug.control().splitlines()[1] == (
        'kernel/livepatch/core.c:10 [livepatch]klp_enable =pfl "enabling %s\\n"'
    )


def test_a_query_for_a_module_is_for_none_of_the_others(debug: DynamicDebug) -> None:
    debug.execute("+p", "ext4")
    assert on(debug) == []
    debug.execute("func klp_enable +p", "livepatch")
    assert on(debug) == ["klp_enable"]
