# SPDX-License-Identifier: GPL-2.0-or-later
"""Which consistency model tears what, which one stalls, which one stops the machine: measured."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import trio
from explore import Exploration, explore
from plot import svg
from rich.console import Console
from rich.table import Table
from run import Change, measure
from table import KINDS, LOADS, Row, agrees, is_safe

from klpfs.machine.kernel.livepatch.consistency import LEAVE, PRESETS, SWITCH, Model, pair, parse

_PAIRS = [pair(leave, switch) for leave in LEAVE for switch in SWITCH]


def _models(_ctx: click.Context, _param: click.Parameter, names: tuple[str, ...]) -> list[Model]:
    try:
        return [parse(name) for name in names] or list(PRESETS.values())
    except ValueError as error:
        raise click.BadParameter(f"there is no consistency model '{error}'") from None


def _label(model: str) -> str:
    return model.replace("leave=", "").replace(",switch=", "/")


def _print_rows(rows: list[Row], models: dict[str, Model], *, host_time: bool) -> None:
    table = Table(title="on and off under load; times are of the guest", title_justify="left")
    for name in ("model", "kind", "load"):
        table.add_column(name)
    for name in ("calls", "torn", "on or off", "gave up", "stalled", "time", "held", "stops"):
        table.add_column(name, justify="right")
    if host_time:
        table.add_column("longest stop, host", justify="right")
    for row in rows:
        torn = f"[red]{row.torn}[/]" if row.torn else "0"
        if not agrees(row, models[row.model]):
            torn += " [red bold]by definition it is not so[/]"
        cells = [
            _label(row.model), row.kind, row.load, str(row.calls), torn, str(row.finished),
            f"{row.gave_up or '-'}", "yes" if row.stalled else "-",
            "-" if row.seconds is None else f"{row.seconds:.2f} s",
            f"{row.stop:.1f} ms" if row.stop else "-", f"{row.stops or '-'}",
        ]  # fmt: skip
        table.add_row(*cells, *([f"{row.host_us:.0f} us"] if host_time else []))
        if row.load == LOADS[-1] and row.kind == KINDS[-1]:
            table.add_section()
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _print_explored(explored: list[Exploration]) -> None:
    table = Table(title="two tasks, one patch, every interleaving", title_justify="left")
    for name in ("model", "kind", "shortest schedule that tears", "schedules tried"):
        table.add_column(name, justify="right" if name.endswith("tried") else "left")
    for found in explored:
        schedule = f"[red]{found.schedule}[/]" if found.schedule else "none does"
        table.add_row(_label(found.model), found.kind, schedule, str(found.tried))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}", err=True, nl=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, callback=_models)
@click.option("--pairs", is_flag=True, help="All nine pairs of the two axes, too.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only these.")
@click.option("--load", "loads", multiple=True, type=click.Choice(LOADS), help="Only these.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0))
@click.option("--rounds", default=5, show_default=True, help="How often the patch goes on and off.")
@click.option(
    "--explore", "exploring", is_flag=True, help="Instead: every interleaving of a small case."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, on standard output.")
@click.option("--host-time", is_flag=True, help="Also how long the host took over a stop.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
              help="Draw who was in which universe when.")  # fmt: skip
def main(
    models: list[Model],
    pairs: bool,
    kinds: tuple[str, ...],
    loads: tuple[str, ...],
    seed: int,
    rounds: int,
    exploring: bool,
    as_json: bool,
    host_time: bool,
    plot: Path | None,
) -> None:
    """Put a patch on and take it off under tasks that call its functions in virtual time, with each of
    MODELS (default: all that have a name), and count what they saw torn. The same seed gives the same table.

    Ends with status 1 if the result is not what the definitions say.
    """
    models = [*models, *_PAIRS] if pairs else models
    kinds, loads = kinds or KINDS, loads or LOADS
    by_name = {model.name: model for model in models}
    if exploring:
        explored = list(_explore(models, kinds, seed))
        if as_json:
            click.echo(json.dumps({"explored": [asdict(found) for found in explored]}, indent=1))
        else:
            _print_explored(explored)
        right = all((e.schedule is None) == is_safe(by_name[e.model], e.kind) for e in explored)
        sys.exit(not right)
    rows, panels = [], []
    for row, changes in _measure(models, kinds, loads, seed, rounds):
        rows.append(row)
        if row.load == loads[0]:
            panels.append((f"{_label(row.model)}, {row.kind}, {row.load}", changes))
    if as_json:
        keys = [key for key in asdict(Row("", "", "")) if key != "host_us" or host_time]
        table = [{key: asdict(row)[key] for key in keys} for row in rows]
        click.echo(json.dumps({"rows": table}, indent=1))
    else:
        _print_rows(rows, by_name, host_time=host_time)
    if plot is not None:
        plot.write_text(svg(panels))
    sys.exit(not all(agrees(row, by_name[row.model]) for row in rows))


def _measure(
    models: list[Model], kinds: tuple[str, ...], loads: tuple[str, ...], seed: int, rounds: int
) -> Iterator[tuple[Row, list[Change]]]:
    for model in models:
        for load in loads:
            for kind in kinds:
                _progress(f"{model.name}, {kind}, {load}")
                yield trio.run(
                    functools.partial(measure, model, kind, load, seed=seed, rounds=rounds)
                )
    _progress("")


def _explore(models: list[Model], kinds: tuple[str, ...], seed: int) -> Iterator[Exploration]:
    for model in models:
        for kind in kinds:
            _progress(f"{model.name}, {kind}")
            yield trio.run(functools.partial(explore, model, kind, seed=seed))
    _progress("")


main()
