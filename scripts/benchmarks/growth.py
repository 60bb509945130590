# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches of many functions, under many tasks: how the time grows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trio

from benchmarks.guest import Guest, booted
from benchmarks.rows import Bench, Figure, Reach, in_trio, row
from klpfs.machine.kernel.sched.core import Task

MEMORY = 1 << 30
"""Ten thousand kernel stacks take 164 MB."""
LINEAR = 2.0
"""How much more a function, or a task, may take among a hundred times as many."""


def target_source(functions: int) -> str:
    """A module with many functions, and one to sleep in."""
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
    """A patch of as many, which is enabled by many_enable()."""
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
    """From klpfs's call of klp_enable_patch to the end of the transition."""
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
        reach=Reach(1, of="ours"),
    )


def linear(what: str, times: dict[int, float]) -> Iterator[Figure]:
    """What one of many takes, beside one of fewer."""
    each = {count: seconds / count * 1e6 for count, seconds in times.items()}
    fewer, more = sorted(times)[-2:]
    yield Figure(
        f"enable: {more:,} {what}", "us each", each[more], each[fewer], f"of {fewer:,}",
        Reach(LINEAR), note=f"{more:,} {what}: {times[more]:.3g} s",
    )  # fmt: skip


def measured(bench: Bench, functions: int, tasks: int) -> float:
    """Seconds to enable a patch of so many functions under so many tasks that sleep."""
    target, patch = (
        module(bench, f"many{kind}", source(functions), functions)
        for kind, source in (("", target_source), ("_patch", patch_source))
    )
    times = []
    for _ in range(min(3, bench.repetitions)):
        times += in_trio(_measured, target, patch, tasks)
    return min(times)


def module(bench: Bench, name: str, text: str, functions: int) -> Path:
    """A module named ``name``, built once for each number of functions."""
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
        transition = guest.kernel.livepatch.transition
        async with guest.kernel.fork.user_task(1000, "insmod") as task:
            start = time.perf_counter()
            result = await task.call(guest.symbol("many_enable"), 0)
            assert result & 0xFFFFFFFF == 0, "klp_enable_patch failed"
            while transition.patch is not None:
                await trio.sleep(0.01)
            yield time.perf_counter() - start


async def load(guest: Guest, module: Path) -> None:
    async with guest.kernel.fork.user_task(1000, "insmod"):
        await guest.kernel.modules.init_module(module.read_bytes())
