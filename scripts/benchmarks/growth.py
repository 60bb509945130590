# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches of many functions, under many tasks, and how the time grows with their number."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trio

from benchmarks.guest import Guest, booted
from benchmarks.rows import Bench, Figure, Target, in_trio, row
from klpfs.machine.kernel.sched.core import Task

MEMORY = 1 << 30
"""The bytes of the machine's memory. Ten thousand kernel stacks take 164 MB."""
LINEAR = 2.0
"""The largest ratio of the time for one of many functions, or tasks, to that for one of few."""


def target_source(functions: int) -> str:
    """Return the source of a module with many functions, and one that sleeps."""
    each = "".join(
        f"noinline int many_{i}(void);\nnoinline int many_{i}(void)\n{{\n\tbarrier();\n\treturn {i};\n}}\n"
        for i in range(functions)
    )
    return f"""// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/delay.h>
#include <linux/module.h>
{each}
noinline int many_sleep(unsigned long n);
noinline int many_sleep(unsigned long n)
{{
	for (;;)
		msleep(n);
}}
static int __init many_init(void)
{{
	return 0;
}}
module_init(many_init);
MODULE_LICENSE("GPL");
"""


def patch_source(functions: int) -> str:
    """Return the source of a patch for as many functions, which many_enable() enables."""
    bodies = "".join(
        f"static noinline int new_{i}(void)\n{{\n\tbarrier();\n\treturn -{i};\n}}\n"
        for i in range(functions)
    )
    entries = "".join(
        f'\t{{ .old_name = "many_{i}", .new_func = new_{i} }},\n' for i in range(functions)
    )
    return f"""// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/livepatch.h>
#include <linux/module.h>
{bodies}
static struct klp_func funcs[] = {{
{entries}	{{ }}
}};
static struct klp_object objs[] = {{ {{ .name = "many", .funcs = funcs }}, {{ }} }};
static struct klp_patch patch = {{ .mod = THIS_MODULE, .objs = objs }};
noinline int many_enable(unsigned long unused);
noinline int many_enable(unsigned long unused)
{{
	return klp_enable_patch(&patch);
}}
static int __init many_patch_init(void)
{{
	return 0;
}}
module_init(many_patch_init);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"""


@row("growth")
def growth(bench: Bench) -> Iterator[Figure]:
    """The time from the call of klp_enable_patch() to the end of the transition."""
    most, middle = bench.size(10_000, 100), bench.size(1_000, 50)
    counts = [1, 100, most] if not bench.quick else [1, most]
    functions = {n: measured(bench, n, 1) for n in counts}
    tasks = {n: measured(bench, 1, n) for n in counts}
    for what, times in (("functions", functions), ("tasks", tasks)):
        yield from linear(what, times)
    yield Figure(
        f"enable: {middle:,} functions, {middle:,} tasks",
        "s",
        measured(bench, middle, middle),
        target=Target(1, of="ours"),
    )


def linear(what: str, times: dict[int, float]) -> Iterator[Figure]:
    """Yield the time for one of many functions or tasks, beside the time for one of fewer."""
    each = {count: seconds / count * 1e6 for count, seconds in times.items()}
    fewer, more = sorted(times)[-2:]
    yield Figure(
        f"enable: {more:,} {what}", "us each", each[more], each[fewer], f"of {fewer:,}",
        Target(LINEAR), note=f"{more:,} {what}: {times[more]:.3g} s",
    )  # fmt: skip


def measured(bench: Bench, functions: int, tasks: int) -> float:
    """Return the seconds that it takes to enable a patch of ``functions`` under ``tasks`` that
    sleep."""
    target, patch = (
        module(bench, f"many{kind}", source(functions), functions)
        for kind, source in (("", target_source), ("_patch", patch_source))
    )
    times = []
    for _ in range(min(3, bench.repetitions)):
        times += in_trio(_measured, target, patch, tasks)
    return min(times)


def module(bench: Bench, name: str, text: str, functions: int) -> Path:
    """Build the module ``name``, once for each number of functions, and return its path."""
    directory = bench.work / f"growth-{functions}"
    directory.mkdir(exist_ok=True)
    built = directory / f"{name}.ko"
    return built if built.exists() else bench.build_fresh(name, text).rename(built)


async def _measured(target: Path, patch: Path, tasks: int) -> AsyncIterator[float]:
    async with booted(MEMORY) as guest:
        await load(guest, target)
        sleep = guest.symbol("many_sleep")

        async def main(task: Task) -> int:
            return await task.call(sleep, 3_600_000)

        for _ in range(tasks):
            guest.kernel.fork.create_kthread("sleeper", main)
        while not all(task.service for task in guest.kernel.sched if task.comm == "sleeper"):
            await trio.sleep(0.01)
        await load(guest, patch)
        universes = guest.kernel.livepatch.universes
        async with guest.kernel.fork.user_task(1000, "insmod") as task:
            start = time.perf_counter()
            result = await task.call(guest.symbol("many_enable"), 0)
            assert result & 0xFFFFFFFF == 0, "klp_enable_patch failed"
            while universes.patch is not None:
                await trio.sleep(0.01)
            yield time.perf_counter() - start


async def load(guest: Guest, module: Path) -> None:
    """Load a module."""
    async with guest.kernel.fork.user_task(1000, "insmod"):
        await guest.kernel.modules.init_module(module.read_bytes())
