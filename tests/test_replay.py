# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in virtual time can be repeated: the seed alone decides the order of tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio
import trio.testing
from klp_guest import booted

from klpfs.machine.kernel.clock import VirtualClock

RACERS = """#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/delay.h>
#include <linux/module.h>

static DECLARE_COMPLETION(go);

static int racer(void *data)
{
	long i;

	wait_for_completion(&go);
	for (i = 0; i < 3; i++) {
		volatile int spin = 30000;

		while (spin)
			spin--;
		pr_info("%ld\\n", (long)data);
		cond_resched();
	}
	return 0;
}

static int __init racers_init(void)
{
	long i;

	for (i = 0; i < 6; i++)
		kthread_run(racer, (void *)i, "racer/%ld", i);
	msleep(10);
	complete_all(&go);
	return 0;
}

module_init(racers_init);
MODULE_LICENSE("GPL");
"""


def race(module: Path, seed: int) -> list[str]:
    """Return the log of the racers, in the order in which they ran."""

    async def main() -> list[str]:
        async with booted(clock=VirtualClock(seed), slice_instructions=20_000) as guest:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guest.insmod, module)
                await trio.testing.wait_all_tasks_blocked()
                await guest.advance(1)
            return guest.log()

    return trio.run(main)


def test_the_same_seed_gives_the_same_run(ko: Callable[..., Path]) -> None:
    module = ko("racers", RACERS)
    runs = {seed: race(module, seed) for seed in range(4)}
    assert all(len(lines) == 19 for lines in runs.values())  # and the line about the taint
    assert all(race(module, seed) == lines for seed, lines in runs.items())
    assert len({tuple(lines) for lines in runs.values()}) > 1
