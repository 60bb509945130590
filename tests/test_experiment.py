# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment of scripts/consistency, with small parameters.

Torn calls are those that the two axes of a model permit, a seed repeats a run, and the search finds
a schedule with torn calls if there is one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trio
from experiment.explore import explore, words
from experiment.plot import svg
from experiment.run import Change, measure
from experiment.table import KINDS, Row, agrees, is_safe

from klpfs.machine.kernel.livepatch.consistency import LEAVE, PRESETS, SWITCH, pair, parse

CONSISTENCY = Path(__file__).parent.parent / "scripts/consistency"


def once(model: str, kind: str, load: str = "short", seed: int = 1) -> tuple[Row, list[Change]]:
    async def main() -> tuple[Row, list[Change]]:
        return await measure(parse(model), kind, load, seed=seed, rounds=2)

    return trio.run(main)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["3.20", "kgraft", "criu", "leave=kernel,switch=function"])
def test_what_is_torn_under_short_calls(model: str, kind: str) -> None:
    row, changes = once(model, kind)
    assert row.finished == 4 and not row.gave_up and not row.stalled
    assert agrees(row, parse(model)), row
    assert (row.torn == 0) == is_safe(parse(model), kind)
    assert row.calls > 100
    assert (row.stop > 0) == ("criu" in model or "leave=kernel" in model)
    assert changes[0].time < changes[-1].time


def test_one_task_that_never_leaves_stalls_it_or_makes_it_give_up() -> None:
    row, _ = once("hybrid", "nested", "never")
    assert row.stalled == 1 and row.finished == 0 and row.seconds is None
    row, _ = once("criu", "nested", "never")
    assert row.gave_up > 0 and not row.stalled
    assert row.stop > 19_000  # milliseconds for which the other tasks were stopped
    row, _ = once("3.20", "nested", "never")
    assert row.finished == 4


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [once("hybrid", "across", seed=seed) for seed in (1, 1, 2)]
    for row, _ in runs:
        row.host_us = 0
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_definitions() -> None:
    """The table of the changes that each of the named models is safe for."""
    safe = {
        name: [kind for kind in KINDS if is_safe(model, kind)] for name, model in PRESETS.items()
    }
    assert safe == {
        "3.20": [],
        "ksplice": ["nested", "across"],
        "kpatch": ["nested", "across"],
        "refcount": ["nested", "across"],
        "kgraft": ["nested", "sequential"],
        "hybrid": ["nested"],
        "criu": ["nested", "sequential", "across"],
    }
    pairs = [pair(leave, switch) for leave in LEAVE for switch in SWITCH]
    assert [m.name for m in pairs if all(is_safe(m, kind) for kind in KINDS)] == [
        "leave=kernel,switch=kernel"
    ]


def test_words_are_all_interleavings() -> None:
    assert len(list(words(10))) == 3150  # 10! / (4! 4! 2!)
    assert len(set(words(10, alike=True))) == 1575
    assert list(words(2, alike=True)) == ["00", "01", "0P", "P0", "PP"]


@pytest.mark.parametrize(
    ("model", "kind"), [("3.20", "nested"), ("3.20", "across"), ("hybrid", "sequential"),
                        ("leave=patched_set,switch=function", "sequential")],
)  # fmt: skip
def test_a_schedule_that_tears_is_found_and_tears_again(model: str, kind: str) -> None:
    first = trio.run(explore, parse(model), kind)
    assert first.schedule is not None
    assert trio.run(explore, parse(model), kind) == first


def test_the_command_prints_json_and_draws(tmp_path: Path) -> None:
    picture = tmp_path / "universes.svg"
    command = [sys.executable, str(CONSISTENCY), "kgraft", "--load", "short", "--kind", "nested",
               "--rounds", "1", "--json", "--plot", str(picture)]  # fmt: skip
    environment = {**os.environ, "KLPFS_PYTHON": sys.executable}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    [row] = json.loads(done.stdout)["rows"]
    assert row["model"] == "kgraft" and row["torn"] == 0 and row["finished"] == 2
    text = picture.read_text()
    ElementTree.fromstring(text)
    assert text.startswith("<svg ") and "units/3" in text and "old universe" in text


def test_a_picture_of_nothing() -> None:
    assert "nothing changed" in svg([("kpatch", [])])
