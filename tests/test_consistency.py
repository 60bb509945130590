# SPDX-License-Identifier: GPL-2.0-or-later
"""Consistency models.

Each preset and each pair enables and disables a patch, with and without a task that delays it. Other
tests are about the choice of the model, and about stacked patches with different models.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from klp_guest import Call, Guest, booted, patch_source

from klpfs.machine.instructions import NOP5, jump_to
from klpfs.machine.kernel.livepatch import consistency
from klpfs.machine.kernel.livepatch.consistency import LEAVE, PRESETS, SWITCH
from klpfs.machine.kernel.proc_pid import proc_pid_stack
from klpfs.pytest_plugin import Machine

Ko = Callable[..., Path]
TARGET = "klp_target"
PAIRS = [f"leave={leave},switch={switch}" for leave in LEAVE for switch in SWITCH]
MODELS = [*PRESETS, *PAIRS]
GIVE_UP = {"ksplice", "kpatch", "criu", "leave=patched_set,switch=kernel",
           "leave=kernel,switch=kernel"}  # fmt: skip
AT_ONCE = {"3.20", *(pair for pair in PAIRS if "leave=function" in pair)}
WAIT = set(MODELS) - GIVE_UP - AT_ONCE


@pytest.fixture
async def guest(ko: Ko) -> AsyncIterator[Guest]:
    """Return a kernel with the target module."""
    async with booted() as guest:
        await guest.insmod(ko(TARGET))
        guest.log()
        yield guest


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def patch(ko: Ko, model: str = "", name: str = "klp_a", **versions: int) -> Path:
    """Build a patch whose functions return other numbers: by default, one() 11 and two() 22."""
    funcs = versions or {"one": 11, "two": 22}
    return ko(name, patch_source({TARGET: funcs}, consistency=model))


async def parameter(guest: Guest, name: str, value: str | None = None) -> str:
    directory = guest.kernel.kobjects.at(("module", "livepatch", "parameters"))
    attribute = next(a for a in directory.attributes if a.name == name)
    if value is not None:
        assert attribute.store is not None
        await attribute.store(f"{value}\n".encode())
    assert attribute.show is not None
    text = attribute.show()
    assert isinstance(text, str)
    return text.strip()


async def wake(guest: Guest, call: Call) -> None:
    guest.set("wake", 1)
    await guest.advance(0.2)
    await call.task.ended.wait()
    guest.set("wake", 0)


async def in_background(
    guest: Guest, nursery: trio.Nursery, step: Callable[[], object]
) -> list[int]:
    """Start a call that may wait. Its errno, or 0, is added to the list when it ends."""
    results: list[int] = []

    async def run() -> None:
        try:
            await step()  # type: ignore[misc]
            results.append(0)
        except OSError as error:
            results.append(error.errno or 0)

    nursery.start_soon(run)
    await guest.settle()
    return results


# -- on and off -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
async def test_enable_and_disable_without_a_delay(guest: Guest, ko: Ko, model: str) -> None:
    before = guest.owners()
    text = [guest.kernel.text.read(guest.symbol(name), 16) for name in ("one", "two")]
    await guest.insmod(patch(ko, model))
    await guest.advance(2)
    assert await guest.versions("one", "two", "three") == [11, 22, 3]
    assert await guest.read("klp_a/transition") == "0"
    assert guest.log()[-1] == "livepatch: 'klp_a': patching complete"
    await guest.write("klp_a/enabled", 0)
    await guest.advance(2)
    assert await guest.versions("one", "two", "three") == [1, 2, 3]
    assert guest.installed() == []
    assert guest.log()[-1] == "livepatch: 'klp_a': unpatching complete"
    await guest.rmmod("klp_a")
    guest.check()
    assert guest.owners() == before
    assert text == [guest.kernel.text.read(guest.symbol(name), 16) for name in ("one", "two")]


@pytest.mark.parametrize("model", sorted(WAIT))
async def test_a_task_that_sleeps_in_the_set_delays_the_patch(
    guest: Guest, ko: Ko, model: str
) -> None:
    """The sleeper is a kernel thread in nap(), which calls one() before and after its sleep."""
    nap = await guest.start("nap")
    module = patch(ko, model, one=11, nap=99)
    async with trio.open_nursery() as nursery:
        loaded = await in_background(guest, nursery, lambda: guest.insmod(module))
        await guest.advance(60)
        assert loaded == [0]
        assert await guest.read("klp_a/transition") == "1"
        await wake(guest, nap)
        assert nap.returned == 1001  # the old nap() has called the old one(), twice
        await guest.advance(60)
        assert await guest.read("klp_a/transition") == "0"
        assert await guest.versions("one", "nap") == [11, 99]


@pytest.mark.parametrize("model", sorted(AT_ONCE))
async def test_a_model_that_waits_for_nothing(guest: Guest, ko: Ko, model: str) -> None:
    nap = await guest.start("nap")
    await guest.insmod(patch(ko, model, one=11, nap=99))
    assert await guest.read("klp_a/transition") == "0"
    await wake(guest, nap)
    assert nap.returned == 1011  # the old nap() has called the old one(), then the new one


@pytest.mark.parametrize("model", sorted(GIVE_UP))
async def test_a_model_that_gives_up(guest: Guest, ko: Ko, model: str) -> None:
    """Enabling fails with EBUSY and leaves no trace; so does disabling."""
    nap = await guest.start("nap")
    before = guest.owners()
    module = patch(ko, model, one=11, nap=99)
    async with trio.open_nursery() as nursery:
        loaded = await in_background(guest, nursery, lambda: guest.insmod(module))
        await guest.advance(30)
        assert loaded == [errno.EBUSY]
        lines = guest.klp_log()
        where = (
            "is in the kernel"
            if "criu" in model or "leave=kernel" in model
            else "is in function nap"
        )
        said = f"'klp_a': caller:{nap.task.pid} {where}"
        assert lines.count(said) == consistency.parse(model).tries
        assert lines[-2:] == ["'klp_a': giving up patching", "'klp_a': unpatching complete"]
        assert guest.installed() == [] and guest.kernel.modules.find("klp_a") is None
        assert guest.owners() == before
        assert await guest.call("one") == 1
        guest.check()
        await wake(guest, nap)
        assert nap.returned == 1001
        await guest.insmod(module)
        assert await guest.call("nap") == 99


@pytest.mark.parametrize("model", ["ksplice", "kpatch", "criu"])
async def test_disabling_gives_up_too(guest: Guest, ko: Ko, model: str) -> None:
    head = "extern bool go;\nstatic bool go;\nmodule_param(go, bool, 0644);"
    body = "while (!READ_ONCE(go)) msleep(100); return 99;"
    source = patch_source({TARGET: {"nap": body, "one": 11}}, consistency=model, head=head)
    await guest.insmod(ko("klp_a", source.replace("extern bool go;\n", "")))
    nap = await guest.start("nap")
    async with trio.open_nursery() as nursery:
        written = await in_background(guest, nursery, lambda: guest.write("klp_a/enabled", 0))
        await guest.advance(30)
        assert written == [errno.EBUSY]
    assert guest.klp_log()[-2:] == ["'klp_a': giving up unpatching", "'klp_a': patching complete"]
    assert await guest.read("klp_a/enabled") == "1"
    assert await guest.call("one") == 11
    guest.set("go", 1, "klp_a")
    await guest.advance(1)
    assert nap.returned == 99
    await guest.write("klp_a/enabled", 0)
    assert guest.installed() == []
    guest.check()


@pytest.mark.parametrize("model", sorted(WAIT - {"leave=kernel,switch=function"}))
async def test_a_transition_that_waits_is_reversed_or_forced(
    guest: Guest, ko: Ko, model: str
) -> None:
    nap = await guest.start("nap")
    module = patch(ko, model, one=11, nap=99)
    await guest.insmod(module)
    await guest.advance(5)
    await guest.write("klp_a/enabled", 0)
    await guest.advance(5)
    assert guest.installed() == []
    await guest.rmmod("klp_a")
    guest.check()
    await guest.insmod(module)
    await guest.write("klp_a/force", 1)
    await guest.advance(2)
    assert await guest.read("klp_a/transition") == "0"
    assert await guest.call("one") == 11
    await wake(guest, nap)
    assert nap.returned == 1011  # that is what force means


# -- how they do it -------------------------------------------------------------------------------


async def test_ksplice_writes_a_jump_over_the_entry_and_needs_no_site(guest: Guest, ko: Ko) -> None:
    entry, text = guest.symbol("one"), guest.kernel.text
    assert text.read(entry) == NOP5
    await guest.insmod(patch(ko, "ksplice", one=11, siteless=55))
    new = guest.symbol("new_0_0", "klp_a")
    assert text.read(entry) == jump_to(entry, new)
    assert await guest.versions("one", "siteless") == [11, 55]
    ftrace = guest.kernel.ftrace
    assert entry not in [site.ip for site in ftrace.sites()]  # it cannot be traced now
    assert list(ftrace.enabled_sites()) == []

    await guest.insmod(patch(ko, "ksplice", "klp_b", one=111))
    assert text.read(entry) == jump_to(entry, guest.symbol("new_0_0", "klp_b"))
    await guest.write("klp_a/enabled", 0)  # below it
    assert await guest.versions("one", "siteless") == [111, 5]
    await guest.write("klp_b/enabled", 0)
    assert text.read(entry) == NOP5
    assert entry in [site.ip for site in ftrace.sites()]
    await guest.rmmod(TARGET)


async def test_a_jump_in_a_module_that_comes_later(guest: Guest, ko: Ko) -> None:
    await guest.rmmod(TARGET)
    await guest.insmod(patch(ko, "ksplice"))
    await guest.insmod(ko(TARGET))
    assert await guest.versions("one", "two") == [11, 22]
    await guest.rmmod(TARGET)
    await guest.insmod(ko(TARGET))
    await guest.write("klp_a/enabled", 0)
    assert await guest.versions("one", "two") == [1, 2]
    guest.check()


async def test_refcount_switches_when_the_last_call_returns(guest: Guest, ko: Ko) -> None:
    """This happens at once, not at the next retry. Calls that begin before that are old and counted."""
    first = await guest.start("nap")
    await guest.insmod(patch(ko, "refcount", one=11, nap=99))
    second = await guest.start("nap")
    assert "nap+0x" in proc_pid_stack(guest.kernel.base, second.task)
    assert "klp_refcount_return" not in proc_pid_stack(guest.kernel.base, second.task)
    guest.set("wake", 1)
    await guest.advance(0.2)
    assert (first.returned, second.returned) == (1001, 1001)
    guest.set("wake", 0)
    await guest.advance(1)  # the first one was not counted: a retry finds that it has left
    third = await guest.start("nap")
    assert (await guest.read("klp_a/transition"), third.returned) == ("0", 99)
    guest.check()


MORTAL = """#include <linux/delay.h>
#include <linux/module.h>
static bool go;
module_param(go, bool, 0644);
int mortal(void);
noinline int mortal(void)
{
	while (!READ_ONCE(go))
		msleep(100);
	return *(volatile int *)8;
}
MODULE_LICENSE("GPL");
"""


async def test_refcount_forgets_the_calls_of_a_dead_task(guest: Guest, ko: Ko) -> None:
    await guest.insmod(ko("klp_mortal", MORTAL))
    source = patch_source({"klp_mortal": {"mortal": 99}}, consistency="refcount")
    await guest.start("mortal", module="klp_mortal")
    await guest.insmod(ko("klp_a", source))
    await guest.start("mortal", module="klp_mortal")
    await guest.advance(5)
    assert await guest.read("klp_a/transition") == "1"
    guest.set("go", 1, "klp_mortal")
    await guest.advance(3)
    assert any("NULL pointer" in line for line in guest.log())
    assert await guest.read("klp_a/transition") == "0"
    assert await guest.call("mortal", module="klp_mortal") == 99


async def test_refcount_while_modules_come_and_go(guest: Guest, ko: Ko) -> None:
    before = guest.owners()
    nap = await guest.start("nap")
    objects = {TARGET: {"nap": 99}, "klp_mortal": {"mortal": 98}}
    await guest.insmod(ko("klp_a", patch_source(objects, consistency="refcount")))
    await guest.insmod(ko("klp_mortal", MORTAL))
    inside = await guest.start("mortal", module="klp_mortal")  # old, and not in the count yet
    await guest.advance(2)
    guest.set("go", 1, "klp_mortal")
    await guest.advance(1)
    assert inside.task.ended.is_set()
    assert await guest.read("klp_a/transition") == "1"
    await guest.rmmod("klp_mortal")
    await guest.advance(2)
    assert await guest.read("klp_a/transition") == "1"
    await wake(guest, nap)
    await guest.advance(2)
    assert await guest.read("klp_a/transition") == "0"
    assert await guest.call("nap") == 99
    await guest.write("klp_a/enabled", 0)
    await guest.advance(2)
    await guest.rmmod("klp_a")
    assert guest.owners() == before


async def test_refcount_of_a_patch_for_nothing_that_is_loaded(guest: Guest, ko: Ko) -> None:
    """An ftrace_ops with an empty filter would count the calls of every function."""
    await guest.rmmod(TARGET)
    await guest.insmod(patch(ko, "refcount"))
    assert await guest.read("klp_a/transition") == "0"
    assert list(guest.kernel.ftrace.enabled_sites()) == []
    await guest.insmod(ko(TARGET))
    assert await guest.versions("one", "two") == [11, 22]


async def test_kgraft_moves_a_thread_at_its_safe_point_and_not_in_between(
    guest: Guest, ko: Ko
) -> None:
    await guest.insmod(ko("sleeper"))
    await guest.advance(0.05)
    task = next(task for task in guest.kernel.sched if task.comm == "sleeper")
    await guest.insmod(patch(ko, "kgraft"))
    await guest.advance(30)
    # It asks kthread_should_stop() all the time, but in sleeper_nap(), not in its own function.
    assert task.struct.patch_state == 0
    others = {t.struct.patch_state for t in guest.kernel.sched if t is not task}
    assert others == {1}
    guest.set("wake", 1, "sleeper")
    await guest.advance(0.3)
    assert task.struct.patch_state in (1, -1)
    await guest.advance(1)
    assert await guest.read("klp_a/transition") == "0"


async def test_criu_keeps_tasks_out_until_all_are(guest: Guest, ko: Ko) -> None:
    nap = await guest.start("nap")
    async with trio.open_nursery() as nursery:
        loaded = await in_background(
            guest, nursery, lambda: guest.insmod(patch(ko, "criu", one=11, nap=99))
        )
        await guest.advance(5)
        results: list[int] = []

        async def enter() -> None:
            results.append(await guest.call("one"))

        nursery.start_soon(enter)
        await guest.advance(5)
        assert results == []
        assert await guest.read("klp_a/transition") == "1"  # that needs no guest code
        await wake(guest, nap)
        await guest.advance(1)
        assert loaded == [0]
        assert results == [11]
        assert nap.returned == 1001


# -- who chooses ----------------------------------------------------------------------------------


async def test_a_patch_says_what_it_is_willing_to_use(guest: Guest, ko: Ko) -> None:
    assert await parameter(guest, "consistency") == "hybrid"
    assert await parameter(guest, "consistency_allowed") == "any"

    async def chosen(said: str) -> str:
        await guest.insmod(patch(ko, said))
        [installed] = guest.patches()
        name = guest.kernel.livepatch.consistency.of(installed).name
        await guest.advance(2)
        await guest.write("klp_a/enabled", 0)
        await guest.advance(2)
        await guest.rmmod("klp_a")
        return name

    assert await chosen("") == "hybrid"
    assert await chosen("kgraft") == "kgraft"
    assert await chosen("leave=kernel,switch=function,3.20") == "leave=kernel,switch=function"
    await parameter(guest, "consistency", "kpatch")
    assert await chosen("") == "kpatch"
    await parameter(guest, "consistency_allowed", "kgraft, leave=kernel,switch=function,3.20")
    assert (
        await parameter(guest, "consistency_allowed") == "kgraft,leave=kernel,switch=function,3.20"
    )
    assert await chosen("ksplice,criu,3.20,kgraft") == "3.20"
    guest.log()
    assert await chosen("stop_the_world,kgraft") == "kgraft"
    assert guest.klp_log()[0] == "patch 'klp_a': there is no consistency model 'stop_the_world'"
    for said, name in (("", "kpatch"), ("ksplice,criu", "ksplice,criu")):
        before = guest.owners()
        with refused(errno.EINVAL):
            await guest.insmod(patch(ko, said))
        assert guest.klp_log() == [
            f"patch 'klp_a' is willing to use {name}, "
            "allowed is kgraft,leave=kernel,switch=function,3.20: no consistency model in common"
        ]
        assert guest.owners() == before and guest.installed() == []


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("consistency", "nothing", "there is no consistency model 'nothing'"),
        ("consistency", "", "there is no consistency model ''"),
        ("consistency", "leave=kernel", "there is no consistency model 'leave=kernel'"),
        ("consistency", "leave=kernel,switch=cpu", "there is no consistency model 'leave=kernel,switch=cpu'"),
        ("consistency_allowed", "", "'any' or a list of consistency models is wanted"),
        ("consistency_allowed", "hybrid,any", "there is no consistency model 'any'"),
        ("consistency_allowed", "hybrid,switch=cpu", "there is no consistency model 'switch=cpu'"),
    ],
)  # fmt: skip
async def test_invalid_parameters(guest: Guest, name: str, value: str, line: str) -> None:
    before = await parameter(guest, name)
    with refused(errno.EINVAL):
        await parameter(guest, name, value)
    assert guest.klp_log() == [line]
    assert await parameter(guest, name) == before


async def test_a_kernel_image_without_code_that_counts(guest: Guest, ko: Ko) -> None:
    """As a distribution's: refcount is refused, the others are there."""
    counter = guest.kernel.switches._counter
    counter._handler = None  # as where the image has no klp_refcount_enter
    line = "consistency model 'refcount': this kernel image has no code that counts calls"
    with refused(errno.EINVAL):
        await parameter(guest, "consistency", "refcount")
    assert guest.klp_log() == [line]
    with refused(errno.EINVAL):
        await guest.insmod(patch(ko, "refcount"))
    assert guest.klp_log() == [
        line,
        "patch 'klp_a' is willing to use refcount, allowed is any: no consistency model in common",
    ]
    await guest.insmod(patch(ko, "refcount,kpatch"))
    assert await guest.call("one") == 11


# -- on top of each other -------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [m for m in PRESETS if m != "ksplice"])
async def test_all_that_redirect_by_ftrace_stack(guest: Guest, ko: Ko, lower: str) -> None:
    upper = [model for model in PRESETS if model not in ("ksplice", lower)]
    await guest.insmod(patch(ko, lower, "klp_lower", one=10))
    await guest.advance(2)
    for i, model in enumerate(upper):
        await guest.insmod(patch(ko, model, f"klp_upper{i}", one=100 + i))
        await guest.advance(2)
        assert await guest.call("one") == 100 + i
    await guest.write("klp_lower/enabled", 0)
    await guest.advance(2)
    for i in reversed(range(len(upper))):
        assert await guest.call("one") == 100 + i
        await guest.write(f"klp_upper{i}/enabled", 0)
        await guest.advance(2)
    assert await guest.call("one") == 1
    guest.check()


@pytest.mark.parametrize(("first", "second"), [("ksplice", "hybrid"), ("3.20", "ksplice")])
async def test_a_jump_and_ftrace_at_one_function_are_refused(
    guest: Guest, ko: Ko, first: str, second: str
) -> None:
    ways = {model: PRESETS[model].redirection for model in (first, second)}
    await guest.insmod(patch(ko, first))
    guest.log()
    with refused(errno.EBUSY):
        await guest.insmod(patch(ko, second, "klp_b", three=33, two=222))
    assert (
        f"function 'two' is redirected by {ways[first]}, no patch can redirect it by {ways[second]}"
        in guest.klp_log()
    )
    assert await guest.versions("one", "two", "three") == [11, 22, 3]
    await guest.insmod(patch(ko, second, "klp_c", three=33))
    assert await guest.versions("one", "two", "three") == [11, 22, 33]
    await guest.write("klp_a/enabled", 0)
    await guest.write("klp_c/enabled", 0)
    assert await guest.versions("one", "two", "three") == [1, 2, 3]


async def test_atomic_replace_from_one_model_to_another(guest: Guest, ko: Ko) -> None:
    await guest.insmod(patch(ko, "kgraft"))
    await guest.advance(2)
    source = patch_source({TARGET: {"three": 33}}, replace=True, consistency="kpatch")
    await guest.insmod(ko("klp_b", source))
    assert await guest.versions("one", "two", "three") == [1, 2, 33]
    assert guest.installed() == ["klp_b"]
    guest.check()


async def test_atomic_replace_over_jumps(guest: Guest, ko: Ko) -> None:
    await guest.insmod(patch(ko, "ksplice"))
    source = patch_source({TARGET: {"three": 33}}, replace=True)
    with refused(errno.EBUSY):  # it would have to restore one() by ftrace
        await guest.insmod(ko("klp_b", source))
    source = patch_source({TARGET: {"three": 33}}, replace=True, consistency="ksplice")
    await guest.insmod(ko("klp_b", source))
    assert await guest.versions("one", "two", "three") == [1, 2, 33]
    assert guest.installed() == ["klp_b"]
    await guest.write("klp_b/enabled", 0)
    assert await guest.call("three") == 3
    assert guest.kernel.text.read(guest.symbol("one")) == NOP5


def test_the_model_of_a_patch_as_a_mount_shows_it(
    klpfs_mount: Callable[..., Machine], ko: Ko
) -> None:
    machine = klpfs_mount("--virtual-time", "--seed", "7")
    parameters = "sys/module/livepatch/parameters"
    assert machine.read(f"{parameters}/consistency") == "hybrid\n"
    with pytest.raises(OSError, match="Invalid argument"):
        machine.write(f"{parameters}/consistency", "none")
    machine.write(f"{parameters}/consistency", "kgraft\n")
    machine.insmod(ko(TARGET))
    machine.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}})))
    columns, line = machine.read("machine/consistency").splitlines()
    assert columns.split()[:4] == ["patch", "model", "leave", "switch"]
    assert line.startswith("klp_a kgraft kernel thread ftrace stacks ")
    machine.advance(2)
    assert machine.read("machine/consistency").splitlines()[1].endswith(" - -")
    assert sorted(path.name for path in machine.path("sys/kernel/livepatch/klp_a").iterdir()) == [
        "enabled", "force", "klp_target", "replace", "stack_order", "transition"
    ]  # fmt: skip
