# SPDX-License-Identifier: GPL-2.0-or-later
"""The livepatch core: callbacks, atomic replace, stacked patches, coming and going modules, stalled
transitions, and callbacks that die."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from klp_guest import Call, Guest, booted, patch_source

from klpfs.machine.kernel.sched.task import TaskExit, TaskState
from klpfs.modules import kbuild

Ko = Callable[..., Path]
TARGET = "klp_target"
EMPTY = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    """Return a kernel without modules. All invariants must hold at the end."""
    async with booted() as guest:
        yield guest
        guest.check()


@pytest.fixture
async def target(guest: Guest, ko: Ko) -> Guest:
    """Return a kernel with the target module."""
    await guest.insmod(ko("klp_target"))
    guest.log()
    return guest


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


async def take_off(guest: Guest, *names: str) -> None:
    for name in names:
        await guest.write(f"{name}/enabled", 0)
        await guest.advance(2)
        await guest.rmmod(name)


# -- callbacks ------------------------------------------------------------------------------------


def callbacks(guest: Guest) -> list[str]:
    """Return the new log lines of the callbacks of klp_callbacks."""
    prefix = "klp_callbacks: "
    return [line.removeprefix(prefix) for line in guest.log() if line.startswith(prefix)]


async def test_callbacks_of_the_objects_that_are_there_in_the_order_of_the_patch(
    target: Guest, ko: Ko
) -> None:
    await target.insmod(ko("klp_callbacks"))
    assert callbacks(target)[-4:] == [
        "pre_patch: vmlinux", "pre_patch: klp_target",
        "post_patch: vmlinux", "post_patch: klp_target",
    ]  # fmt: skip
    await target.insmod(ko("klp_later", EMPTY))
    assert callbacks(target) == ["pre_patch: klp_later", "post_patch: klp_later"]
    await target.rmmod("klp_target")
    assert callbacks(target) == ["pre_unpatch: klp_target", "post_unpatch: klp_target"]
    await target.write("klp_callbacks/enabled", 0)
    assert callbacks(target) == [
        "pre_unpatch: vmlinux", "pre_unpatch: klp_later",
        "post_unpatch: vmlinux", "post_unpatch: klp_later",
    ]  # fmt: skip


async def test_pre_patch_that_fails_cancels_the_patch(target: Guest, ko: Ko) -> None:
    before = target.owners()
    with refused(errno.ENODEV):
        await target.insmod(ko("klp_callbacks"), f"object=klp_target fail=-{errno.ENODEV}")
    lines = target.log()
    assert lines[-6:] == [
        "klp_callbacks: pre_patch: vmlinux",
        "klp_callbacks: pre_patch: klp_target",
        "livepatch: pre-patch callback failed for object 'klp_target'",
        "livepatch: failed to enable patch 'klp_callbacks'",
        "klp_callbacks: post_unpatch: vmlinux",
        "livepatch: 'klp_callbacks': unpatching complete",
    ]
    assert target.installed() == []
    assert target.kernel.modules.find("klp_callbacks") is None
    assert await target.call("one") == 1
    assert target.owners() == before


async def test_pre_patch_that_fails_on_a_coming_module_refuses_the_module(
    guest: Guest, ko: Ko
) -> None:
    await guest.insmod(ko("klp_first", patch_source({TARGET: {"two": 22}})))
    await guest.insmod(ko("klp_callbacks"), f"object=klp_target fail=-{errno.ENODEV}")
    guest.log()
    with refused(errno.ENODEV):
        await guest.insmod(ko("klp_target"))
    assert guest.log()[-5:] == [
        "livepatch: applying patch 'klp_callbacks' to loading module 'klp_target'",
        "klp_callbacks: pre_patch: klp_target",
        "livepatch: pre-patch callback failed for object 'klp_target'",
        "livepatch: patch 'klp_callbacks' failed for module 'klp_target', "
        "refusing to load module 'klp_target'",
        "livepatch: reverting patch 'klp_first' on unloading module 'klp_target'",
    ]
    assert await guest.read("klp_callbacks/vmlinux/patched") == "1"
    assert await guest.read("klp_callbacks/klp_target/patched") == "0"
    guest.check()
    guest.set("fail", 0, "klp_callbacks", size=4)
    await guest.insmod(ko("klp_target"))
    assert await guest.versions("one", "two") == [11, 22]


async def test_no_post_unpatch_where_pre_patch_was_not_called(target: Guest, ko: Ko) -> None:
    """The patch cannot be applied to its second object."""
    said = 'static int pre(struct klp_object *obj) { pr_info("pre_patch\\n"); return 0; }\n' \
        'static void post(struct klp_object *obj) { pr_info("post_unpatch\\n"); }\n'  # fmt: skip
    source = patch_source(
        {TARGET: {"one": 11}, None: {"klp_ftrace_handler": 0}},
        head=said,
        callbacks=".pre_patch = pre, .post_unpatch = post",
    )
    with refused(errno.EINVAL):
        await target.insmod(ko("klp_a", source))
    lines = [line for line in target.log() if "post_unpatch" in line or "location" in line]
    assert lines == [
        "livepatch: failed to find location for function 'klp_ftrace_handler'",
        "klp_a: post_unpatch",
    ]
    assert await target.call("one") == 1


# -- a function in init memory --------------------------------------------------------------------

INIT_TARGET = """#include <linux/module.h>
int early(void);
noinline int __init early(void) { barrier(); return 1; }
int late(void);
noinline int late(void) { barrier(); return 1; }
static int __init target_init(void) { pr_info("early %d\\n", early()); return 0; }
static void __exit target_exit(void) { }
module_init(target_init); module_exit(target_exit); MODULE_LICENSE("GPL");
"""


def reports(guest: Guest) -> list[str]:
    """Return the places of the new WARNs in the log."""
    return [line.split(" at ")[1] for line in guest.log() if line.startswith("WARNING: ")]


async def test_a_patch_of_an_init_function_comes_off_with_a_warning(ko: Ko) -> None:
    async with booted() as guest:
        patch = patch_source({"init_target": {"early": 2, "late": 3}})
        await guest.insmod(ko("klp_early", patch))
        await guest.insmod(ko("init_target", INIT_TARGET))
        assert any("early 2" in line for line in guest.log())
        assert await guest.call("late", module="init_target") == 3
        await guest.write("klp_early/enabled", 0)
        assert reports(guest) == ["kernel/livepatch/patch.c:144 klp_unpatch_func"]
        assert await guest.call("late", module="init_target") == 1
        assert guest.installed() == []
        await guest.rmmod("klp_early")
        assert guest.log() == [
            "klpfs: klp_ops has a function of 'klp_early', which is freed: removed; Linux would use it "
            "after free"
        ]
        await guest.rmmod("init_target")
        await guest.insmod(ko("klp_early", patch))
        await guest.insmod(ko("init_target", INIT_TARGET))
        assert any("early 2" in line for line in guest.log())


async def test_the_target_of_a_patched_init_function_goes_and_comes(ko: Ko) -> None:
    async with booted() as guest:
        target = ko("init_target", INIT_TARGET)
        await guest.insmod(ko("klp_early", patch_source({"init_target": {"early": 2}})))
        await guest.insmod(target)
        guest.log()
        await guest.rmmod("init_target")
        assert reports(guest) == ["kernel/livepatch/patch.c:144 klp_unpatch_func"]
        with refused(errno.EINVAL):
            await guest.insmod(target)
        assert reports(guest) == ["kernel/livepatch/patch.c:168 klp_patch_func"]
        await guest.insmod(target)  # the failed attempt has cleaned up
        assert any("early 2" in line for line in guest.log())
        await guest.rmmod("init_target")


# -- a callback that dies -------------------------------------------------------------------------


async def test_an_oops_in_pre_patch_refuses_the_patch(target: Guest, ko: Ko) -> None:
    with pytest.raises(TaskExit):
        await target.insmod(ko("klp_callbacks"), "object=klp_target oops=pre_patch")
    lines = target.log()
    assert any(line.startswith("BUG: kernel NULL pointer dereference") for line in lines)
    assert "livepatch: failed to enable patch 'klp_callbacks'" in lines
    assert await target.call("one") == 1
    await check_that_patches_work(target, ko)


async def test_an_oops_in_post_patch_leaves_the_patch_on(target: Guest, ko: Ko) -> None:
    with pytest.raises(TaskExit):
        await target.insmod(ko("klp_callbacks"), "object=vmlinux oops=post_patch")
    lines = target.log()
    assert "klp_callbacks: post_patch: klp_target" in lines
    assert lines[-1] == "livepatch: 'klp_callbacks': patching complete"
    assert await target.call("one") == 11
    await check_that_patches_work(target, ko)
    await target.write("klp_callbacks/enabled", 0)
    assert await target.call("one") == 1
    assert target.installed() == []
    with refused(errno.EBUSY):  # its init never returned
        await target.rmmod("klp_callbacks")


async def test_an_oops_in_post_patch_on_a_worker(target: Guest, ko: Ko) -> None:
    """The callback runs at the end of the transition, a second after the sleeper has left the function."""
    nap = await target.start("nap")
    source = patch_source(
        {TARGET: {"nap": 99}},
        head="static void post(struct klp_object *obj) { *(volatile int *)0 = 1; }",
        callbacks=".post_patch = post",
    )
    await target.insmod(ko("klp_dies", source))
    await wake(target, nap)
    lines = target.log()
    assert any("Comm: kworker/" in line for line in lines)
    assert lines[-1] == "livepatch: 'klp_dies': patching complete"
    assert await target.call("nap") == 99
    await check_that_patches_work(target, ko)
    await take_off(target, "klp_dies")


@pytest.mark.parametrize("callback", ["pre_unpatch", "post_unpatch"])
async def test_an_oops_on_the_way_back(target: Guest, ko: Ko, callback: str) -> None:
    await target.insmod(ko("klp_callbacks"), f"object=vmlinux oops={callback}")
    with pytest.raises(TaskExit):
        await target.write("klp_callbacks/enabled", 0)
    await target.settle()
    lines = target.log()
    assert f"klp_callbacks: {callback}: klp_target" in lines
    assert lines[-1] == "livepatch: 'klp_callbacks': unpatching complete"
    assert await target.call("one") == 1
    assert target.installed() == []
    await target.rmmod("klp_callbacks")
    await check_that_patches_work(target, ko)


@pytest.mark.parametrize(("callback", "version"), [("pre_patch", 1), ("post_patch", 11)])
async def test_an_oops_on_a_coming_module(
    guest: Guest, ko: Ko, callback: str, version: int
) -> None:
    await guest.insmod(ko("klp_callbacks"), f"object=klp_target oops={callback}")
    with pytest.raises(TaskExit):
        await guest.insmod(ko("klp_target"))
    assert await guest.call("one") == version  # it stays in the state COMING
    assert await guest.read("klp_callbacks/klp_target/patched") == str(int(version == 11))
    await guest.write("klp_callbacks/enabled", 0)
    guest.check()
    assert await guest.call("one") == 1


@pytest.mark.parametrize("callback", ["pre_unpatch", "post_unpatch"])
async def test_an_oops_on_a_going_module(target: Guest, ko: Ko, callback: str) -> None:
    await target.insmod(ko("klp_callbacks"), f"object=klp_target oops={callback}")
    with pytest.raises(TaskExit):
        await target.rmmod("klp_target")
    assert await target.read("klp_callbacks/klp_target/patched") == "0"
    target.check()
    await take_off(target, "klp_callbacks")


async def check_that_patches_work(guest: Guest, ko: Ko) -> None:
    guest.check()
    await guest.insmod(ko("klp_works", patch_source({TARGET: {"three": 33}})))
    assert await guest.call("three") == 33
    await take_off(guest, "klp_works")
    assert await guest.call("three") == 3


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objects", "number", "line"),
    [
        ({None: {"no_such": 1}}, errno.EINVAL, "symbol 'no_such' not found in symbol table"),
        ({TARGET: {"one,2": 1}}, errno.EINVAL,
         "symbol position 2 for symbol 'one' in object 'klp_target' not found"),
        ({None: {"uname,3": 1}}, errno.EINVAL, "symbol 'uname' not found in symbol table"),
        ({TARGET: {"siteless": 1}}, errno.EINVAL,
         "failed to find location for function 'siteless'"),
        ({"m" * 56: {"one": 1}}, errno.EINVAL, ""),
        ({None: {"f" * 512: 1}}, errno.EINVAL, ""),
    ],
)  # fmt: skip
async def test_functions_that_cannot_be_patched(
    target: Guest, ko: Ko, objects: dict[str | None, dict[str, int]], number: int, line: str
) -> None:
    before = target.owners()
    with refused(number):
        await target.insmod(ko("klp_bad", patch_source(objects)))
    assert line in [*target.klp_log(), ""]
    assert target.owners() == before


async def test_a_function_that_is_listed_twice(target: Guest, ko: Ko) -> None:
    with refused(errno.EEXIST):
        await target.insmod(ko("klp_bad", patch_source({TARGET: {"one": 11, "one,1": 12}})))
    lines = target.log()
    path = "/kernel/livepatch/klp_bad/klp_target/one,1"
    assert f"sysfs: cannot create duplicate filename '{path}'" in lines
    assert "Call Trace:" in lines
    assert target.installed() == []


async def test_a_patch_that_does_not_say_that_it_is_one(target: Guest, ko: Ko) -> None:
    source = patch_source({TARGET: {"one": 11}}).replace('MODULE_INFO(livepatch, "Y");', "")
    with refused(errno.EINVAL):
        await target.insmod(ko("klp_bad", source))
    assert target.klp_log() == ["module klp_bad is not marked as a livepatch module"]


@pytest.mark.parametrize(
    "spoil",
    ["patch.mod = NULL;", "patch.objs = NULL;", "objs[0].funcs = NULL;",
     "funcs_0[0].old_name = NULL;", "funcs_0[0].new_func = NULL;"],
)  # fmt: skip
async def test_patches_with_something_missing(target: Guest, ko: Ko, spoil: str) -> None:
    source = patch_source({TARGET: {"one": 11}}, init=f"{spoil} return klp_enable_patch(&patch);")
    with refused(errno.EINVAL):
        await target.insmod(ko("klp_bad", source))
    assert target.installed() == []


@pytest.mark.parametrize(
    "spoil", ["patch.objs = (void *)0x10;", "funcs_0[0].old_name = (void *)0x10;"]
)
async def test_wild_pointers_are_an_oops_of_the_loader_only(
    target: Guest, ko: Ko, spoil: str
) -> None:
    source = patch_source({TARGET: {"one": 11}}, init=f"{spoil} return klp_enable_patch(&patch);")
    with pytest.raises(TaskExit):
        await target.insmod(ko("klp_bad", source))
    await check_that_patches_work(target, ko)


async def test_enabling_a_patch_twice_is_a_warning(target: Guest, ko: Ko) -> None:
    init = "return klp_enable_patch(&patch) ?: klp_enable_patch(&patch) == -EINVAL ? 0 : -EIO;"
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}}, init=init)))
    assert any(line.startswith("WARNING: CPU: 0 PID:") for line in target.log())
    assert await target.call("one") == 11


async def test_init_that_fails_after_it_has_enabled_its_patch(target: Guest, ko: Ko) -> None:
    init = "klp_enable_patch(&patch); return -EIO;"
    before = target.owners()
    with refused(errno.EIO):
        await target.insmod(ko("klp_bad", patch_source({TARGET: {"one": 11}}, init=init)))
    assert await target.call("one") == 1
    assert target.installed() == []
    assert target.owners() == before


async def test_a_patch_that_is_removed_by_force_while_it_is_on(target: Guest, ko: Ko) -> None:
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}})))
    with refused(errno.EWOULDBLOCK):
        await target.rmmod("klp_a")
    await target.rmmod("klp_a", force=True)
    assert await target.call("one") == 1
    assert target.installed() == []


async def test_a_patch_for_ftrace_that_is_off(target: Guest, ko: Ko) -> None:
    await target.kernel.ftrace.set_enabled(0)
    with refused(errno.EBUSY):
        await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}})))
    assert "failed to register ftrace handler for function 'one' (-16)" in target.klp_log()
    await target.kernel.ftrace.set_enabled(1)
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}})))
    with refused(errno.EBUSY):
        await target.kernel.ftrace.set_enabled(0)


# -- which function -------------------------------------------------------------------------------

TWINS = """#include <linux/module.h>
static noinline int twin(void) {{ barrier(); return {version}; }}
int twin_{version}(void);
int twin_{version}(void) {{ return twin(); }}
{licence}
"""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module with two static functions called twin."""
    directory = tmp_path_factory.mktemp("twins")
    sources = []
    for version, licence in ((1, 'MODULE_LICENSE("GPL");'), (2, "")):
        sources.append(directory / f"twin{version}.c")
        sources[-1].write_text(TWINS.format(version=version, licence=licence))
    return kbuild.build_module("twins", sources, directory)


async def test_sympos_tells_two_functions_of_one_name_apart(
    guest: Guest, ko: Ko, twins: Path
) -> None:
    await guest.insmod(twins)

    async def versions() -> list[int]:
        return [await guest.call(f"twin_{n}", module="twins") for n in (1, 2)]

    guest.log()
    with refused(errno.EINVAL):
        await guest.insmod(ko("klp_bad", patch_source({"twins": {"twin": 5}})))
    assert "unresolvable ambiguity for symbol 'twin' in object 'twins'" in guest.klp_log()
    for position, expected in ((1, [5, 2]), (2, [1, 5])):
        await guest.insmod(ko(f"klp_{position}", patch_source({"twins": {f"twin,{position}": 5}})))
        assert await versions() == expected
        assert list(guest.kobject(f"klp_{position}/twins").children) == [f"twin,{position}"]
        await take_off(guest, f"klp_{position}")
    both = patch_source({"twins": {"twin,1": 8, "twin,2": 9}})
    await guest.insmod(ko("klp_both", both))
    assert await versions() == [8, 9]


async def test_an_object_whose_module_never_comes(guest: Guest, ko: Ko) -> None:
    await guest.insmod(ko("klp_a", patch_source({"nowhere": {"anything": 1, "at_all": 2}})))
    assert await guest.read("klp_a/enabled") == "1"
    assert await guest.read("klp_a/transition") == "0"
    assert await guest.read("klp_a/nowhere/patched") == "0"
    assert list(guest.kobject("klp_a/nowhere").children) == ["anything,1", "at_all,1"]
    await take_off(guest, "klp_a")


async def test_a_hundred_functions(guest: Guest, ko: Ko) -> None:
    await many(guest, ko, 100)


async def test_patching_a_thousand_functions(guest: Guest, ko: Ko) -> None:
    """The growth of the time with their number is a row of scripts/bench."""
    await many(guest, ko, 1000)


async def many(guest: Guest, ko: Ko, count: int) -> None:
    functions = "".join(
        f"noinline int f{i}(void);\nnoinline int f{i}(void) {{ barrier(); return {i}; }}\n"
        for i in range(count)
    )
    source = f'#include <linux/module.h>\n{functions}MODULE_LICENSE("GPL");\n'
    await guest.insmod(ko(f"many_{count}", source))
    patches = [
        patch_source({f"many_{count}": {f"f{i}": 10000 + i for i in range(count)}}),
        patch_source(
            {f"many_{count}": {f"f{i}": 20000 + i for i in range(0, count, 2)}}, replace=True
        ),
    ]
    some = (0, 1, count // 2, count - 1)

    async def versions() -> list[int]:
        return [await guest.call(f"f{i}", module=f"many_{count}") for i in some]

    await guest.insmod(ko(f"klp_a_{count}", patches[0]))
    assert await versions() == [10000 + i for i in some]
    assert len(list(guest.kernel.ftrace.enabled_sites())) == count
    await guest.insmod(ko(f"klp_b_{count}", patches[1]))
    assert await versions() == [i if i % 2 else 20000 + i for i in some]
    await take_off(guest, f"klp_b_{count}")
    assert await versions() == list(some)
    assert not list(guest.kernel.ftrace.enabled_sites())


# -- several patches ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["abc", "cba", "bac", "acb"])
async def test_patches_on_one_function_come_off_in_any_order(
    target: Guest, ko: Ko, order: str
) -> None:
    versions = {"a": 11, "b": 12, "c": 13}
    for name, version in versions.items():
        await target.insmod(ko(f"klp_{name}", patch_source({TARGET: {"one": version}})))
        assert await target.call("one") == version
    assert [await target.read(f"klp_{name}/stack_order") for name in "abc"] == ["1", "2", "3"]
    assert len(list(target.kernel.ftrace.enabled_sites())) == 1
    for name in order:
        await take_off(target, f"klp_{name}")
        del versions[name]
        target.check()
        assert await target.call("one") == (list(versions.values()) or [1])[-1]


async def test_atomic_replace_brings_the_original_back_where_it_has_nothing(
    target: Guest, ko: Ko
) -> None:
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11, "two": 12}})))
    await target.insmod(ko("klp_b", patch_source({TARGET: {"two": 22, "three": 23}})))
    assert await target.versions("one", "two", "three") == [11, 22, 23]
    nop = await patched_nap(target, ko, "klp_c", {"three": 33}, replace=True)
    assert await target.read("klp_c/replace") == "1"
    # in transition: three() is new, the others have nops
    assert sorted(target.kobject("klp_c/klp_target").children) == [
        "nap,1", "one,1", "three,1", "two,1"
    ]  # fmt: skip
    assert await target.versions("one", "two", "three") == [1, 2, 33]
    target.check()
    await wake(target, nop)
    assert target.installed() == ["klp_c"]
    assert sorted(target.kobject("klp_c/klp_target").children) == ["nap,1", "three,1"]
    assert await target.versions("one", "two", "three") == [1, 2, 33]
    for name in ("klp_a", "klp_b"):
        await target.rmmod(name)
    assert "livepatch" not in target.owners()  # the nops


async def test_a_replacing_patch_that_is_reversed_leaves_the_others_on(
    target: Guest, ko: Ko
) -> None:
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11, "two": 12}})))
    before = target.owners()
    nap = await patched_nap(target, ko, "klp_b", {"two": 22}, replace=True)
    await target.write("klp_b/enabled", 0)
    await target.advance(2)
    assert target.installed() == ["klp_a"]
    assert await target.versions("one", "two") == [11, 12]
    await target.rmmod("klp_b")
    assert target.owners() == before
    await wake(target, nap)


async def test_nops_for_a_module_that_comes_and_goes_during_the_transition(
    target: Guest, ko: Ko
) -> None:
    other = '#include <linux/module.h>\nnoinline int other(void);\n' \
        'noinline int other(void) { barrier(); return 7; }\nMODULE_LICENSE("GPL");\n'  # fmt: skip
    await target.insmod(ko("klp_a", patch_source({"klp_other": {"other": 77}})))
    nap = await patched_nap(target, ko, "klp_b", replace=True)
    for _ in range(2):
        await target.insmod(ko("klp_other", other))
        assert await target.call("other", module="klp_other") == 7  # in a new task
        target.check()
        await target.rmmod("klp_other")
        target.check()
    await target.insmod(ko("klp_other", other))
    await wake(target, nap)
    assert list(target.kobject("klp_b").children) == ["klp_target"]
    assert await target.call("other", module="klp_other") == 7
    await target.rmmod("klp_other")


async def test_replacing_patches_one_after_the_other(target: Guest, ko: Ko) -> None:
    for i in range(1, 5):
        source = patch_source({TARGET: {"one": 10 + i}}, replace=True)
        await target.insmod(ko(f"klp_{i}", source))
        assert target.installed() == [f"klp_{i}"]
        assert await target.call("one") == 10 + i
        if i > 1:
            await target.rmmod(f"klp_{i - 1}")
    assert target.klp_log()[-3:] == [
        "enabling patch 'klp_4'",
        "'klp_4': starting patching transition",
        "'klp_4': patching complete",
    ]


# -- modules that come and go ---------------------------------------------------------------------


async def test_modules_come_and_go_before_during_and_after_their_patch(
    guest: Guest, ko: Ko
) -> None:
    await guest.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}, None: {}})))
    guest.log()
    for _ in range(3):
        await guest.insmod(ko("klp_target"))
        assert await guest.call("one") == 11
        assert await guest.read("klp_a/klp_target/patched") == "1"
        guest.check()
        await guest.rmmod("klp_target")
        assert await guest.read("klp_a/klp_target/patched") == "0"
        guest.check()
    assert guest.klp_log() == [
        "applying patch 'klp_a' to loading module 'klp_target'",
        "reverting patch 'klp_a' on unloading module 'klp_target'",
    ] * 3  # fmt: skip
    await guest.insmod(ko("klp_target"))
    await take_off(guest, "klp_a")
    assert await guest.call("one") == 1


async def test_a_module_without_the_function_is_refused(guest: Guest, ko: Ko) -> None:
    await guest.insmod(ko("klp_a", patch_source({TARGET: {"one": 11, "gone": 12}})))
    guest.log()
    for _ in range(2):
        with refused(errno.EINVAL):
            await guest.insmod(ko("klp_target"))
        assert guest.klp_log() == [
            "symbol 'gone' not found in symbol table",
            "failed to initialize patch 'klp_a' for module 'klp_target' (-22)",
            "patch 'klp_a' failed for module 'klp_target', refusing to load module 'klp_target'",
        ]
        guest.check()
    await take_off(guest, "klp_a")
    await guest.insmod(ko("klp_target"))


async def test_a_module_whose_function_cannot_be_traced_is_refused(guest: Guest, ko: Ko) -> None:
    await guest.insmod(ko("klp_a", patch_source({TARGET: {"one": 11, "siteless": 12}})))
    guest.log()
    with refused(errno.EINVAL):
        await guest.insmod(ko("klp_target"))
    assert guest.klp_log() == [
        "applying patch 'klp_a' to loading module 'klp_target'",
        "failed to find location for function 'siteless'",
        "failed to apply patch 'klp_a' to module 'klp_target' (-22)",
        "patch 'klp_a' failed for module 'klp_target', refusing to load module 'klp_target'",
    ]


# -- transitions that take long -------------------------------------------------------------------


async def patched_nap(
    guest: Guest,
    ko: Ko,
    name: str,
    functions: dict[str, int] | None = None,
    *,
    replace: bool = False,
) -> Call:
    """Load the patch ``name`` for nap(), while a task sleeps in there."""
    nap = await guest.start("nap")
    source = patch_source({TARGET: {"nap": 99, **(functions or {})}}, replace=replace)
    await guest.insmod(ko(name, source))
    assert await guest.read(f"{name}/transition") == "1"
    return nap


async def wake(guest: Guest, nap: Call) -> None:
    guest.set("wake", 1)
    await guest.advance(2)
    assert nap.returned is not None
    guest.set("wake", 0)


async def test_a_task_keeps_its_version_until_it_has_left_the_function(
    target: Guest, ko: Ko
) -> None:
    nap = await patched_nap(target, ko, "klp_a", {"one": 11})
    await target.advance(5)
    assert await target.call("one") == 11  # called by another task
    await wake(target, nap)
    assert nap.returned == 1001  # one() returned 1 even after the patch was enabled
    assert target.klp_log()[-1] == "'klp_a': patching complete"


async def test_what_is_refused_during_a_transition(target: Guest, ko: Ko) -> None:
    await target.insmod(ko("klp_first", patch_source({TARGET: {"two": 22}})))
    nap = await patched_nap(target, ko, "klp_a")
    with refused(errno.EBUSY):
        await target.insmod(ko("klp_b", patch_source({TARGET: {"one": 12}})))
    with refused(errno.EBUSY):
        await target.write("klp_first/enabled", 0)
    with refused(errno.EINVAL):
        await target.write("klp_first/force", 1)
    with refused(errno.EINVAL):
        await target.write("klp_a/enabled", 1)
    with refused(errno.EINVAL):
        await target.write("klp_a/enabled", "maybe")
    await target.write("klp_a/force", 0)
    assert await target.versions("one", "two") == [1, 22]
    target.check()
    await wake(target, nap)
    await target.insmod(ko("klp_b", patch_source({TARGET: {"one": 12}})))
    assert await target.call("one") == 12


async def test_reversing_there_and_back(target: Guest, ko: Ko) -> None:
    nap = await patched_nap(target, ko, "klp_a", {"one": 11})
    old = await target.start("nap")  # calls the new nap()
    assert old.returned == 99
    target.klp_log()
    for _ in range(3):
        await target.write("klp_a/enabled", 0)
        await target.write("klp_a/enabled", 1)
        assert await target.read("klp_a/transition") == "1"
        target.check()
    assert target.klp_log() == [
        "'klp_a': starting unpatching transition",
        "'klp_a': starting patching transition",
    ] * 3  # fmt: skip
    await wake(target, nap)
    assert await target.call("one") == 11


async def test_disabling_stalls_on_the_new_function_and_can_be_taken_back(
    target: Guest, ko: Ko
) -> None:
    sleeping = "while (!stop) msleep(100); return 11;"
    head = "static bool stop;\nmodule_param(stop, bool, 0644);\n"
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": sleeping}}, head=head)))
    await target.insmod(ko("klp_b", patch_source({TARGET: {"two": 22}})))
    held = await target.start("one")
    await target.insmod(ko("klp_c", patch_source({TARGET: {"one": 13}}, head="")))
    # the transition of klp_c waits for the sleeper
    assert await target.read("klp_c/transition") == "1"
    target.set("stop", 1, "klp_a")
    await target.advance(2)
    assert held.returned == 11
    target.set("stop", 0, "klp_a")
    # a task in klp_a's function, below that of klp_c
    held = Call(target, target.symbol("new_0_0", "klp_a"), ())
    await target.settle()
    await target.write("klp_a/enabled", 0)
    await target.advance(3)
    assert await target.read("klp_a/transition") == "1"
    assert await target.call("one") == 13
    await target.write("klp_a/enabled", 1)
    await target.advance(3)
    assert await target.read("klp_a/transition") == "0"
    target.check()
    assert await target.read("klp_a/enabled") == "1"
    await take_off(target, "klp_c")
    target.set("stop", 1, "klp_a")
    await target.advance(1)
    assert held.returned == 11
    assert await target.call("one") == 11


async def test_force_moves_all_tasks(target: Guest, ko: Ko) -> None:
    nap = await patched_nap(target, ko, "klp_a", {"one": 11})
    await target.write("klp_a/force", 1)
    await target.advance(1)
    assert await target.read("klp_a/transition") == "0"
    await wake(target, nap)
    assert nap.returned == 1011  # versions are mixed now
    await take_off(target, "klp_a")  # it was forced on, not off: its code is not in use


async def test_patches_that_were_replaced_by_force_are_never_unloaded(
    target: Guest, ko: Ko
) -> None:
    await target.insmod(ko("klp_a", patch_source({TARGET: {"one": 11}})))
    nap = await patched_nap(target, ko, "klp_b", replace=True)
    await target.write("klp_b/force", 1)
    await target.advance(1)
    assert target.installed() == ["klp_b"]
    with refused(errno.EWOULDBLOCK):
        await target.rmmod("klp_a")
    await wake(target, nap)
    await take_off(target, "klp_b")
    with refused(errno.EWOULDBLOCK):
        await target.rmmod("klp_a")


async def test_new_tasks_are_where_their_parent_is(target: Guest, ko: Ko) -> None:
    nap = await patched_nap(target, ko, "klp_a", {"one": 11})
    born = await target.start("nap")
    assert born.returned == 99
    fork = target.kernel.fork
    assert nap.task.struct.patch_state == 0
    child = fork.new_task("child", 77, nap.task)
    assert child.struct.patch_state == 0
    assert target.kernel.livepatch.universes.klp_patch_pending(child)
    fork.release_task(child)
    async with target.process() as process:
        assert process.struct.patch_state == 1
    await target.write("klp_a/enabled", 0)
    async with target.process() as process:  # older than the change: converted as it leaves
        assert process.struct.patch_state == 1
        assert target.kernel.livepatch.universes.klp_patch_pending(process)
    await target.advance(1)
    assert target.installed() == []
    await wake(target, nap)


async def test_after_fifteen_tries_interruptible_sleepers_are_woken(target: Guest, ko: Ko) -> None:
    nap = await target.start("wait")
    results = []

    async def reader() -> None:
        results.append(await target.call("wait"))

    target.kernel.fork.nursery.start_soon(reader)
    await target.settle()
    await target.insmod(ko("klp_a", patch_source({TARGET: {"wait": 99}})))
    await target.advance(14.5)
    assert target.variable("wakeups") == 0 and not results
    await target.advance(1)
    assert target.klp_log()[-1] == "signaling remaining tasks"
    assert target.variable("wakeups") == 2  # the number of sleeps of both; the kthread sleeps again
    assert nap.task.state == TaskState.INTERRUPTIBLE
    assert results == [-errno.EINTR]  # the process gets a fake signal
    await target.advance(15)
    assert target.variable("wakeups") == 3
    assert target.klp_log() == []  # logged once
    target.set("wake", 1)
    await target.advance(16)
    assert nap.returned == 0
    assert await target.read("klp_a/transition") == "0"


# -- shadow variables -----------------------------------------------------------------------------


@pytest.fixture
async def shadow(guest: Guest, ko: Ko) -> Guest:
    await guest.insmod(ko("klp_shadow"))
    guest.log()
    return guest


async def on_shadow(guest: Guest, name: str, *arguments: int) -> int:
    return await guest.call(f"shadow_{name}", *arguments, module="klp_shadow")


ID = 0x5AD
OBJ = 0xFFFF888001234560


async def test_shadow_variables(shadow: Guest) -> None:
    before = shadow.owners()
    assert await on_shadow(shadow, "get", OBJ, ID) == -1
    assert await on_shadow(shadow, "alloc", OBJ, 41) == 41
    assert await on_shadow(shadow, "get", OBJ, ID) == 41
    assert await on_shadow(shadow, "get", OBJ, ID + 1) == -1
    assert await on_shadow(shadow, "get_or_alloc", OBJ, 7) == 41
    assert await on_shadow(shadow, "get_or_alloc", OBJ + 8, 42) == 42
    assert shadow.variable("constructed", "klp_shadow") == 2
    await on_shadow(shadow, "free", OBJ)
    await on_shadow(shadow, "free", OBJ)
    assert await on_shadow(shadow, "get", OBJ, ID) == -1
    assert shadow.variable("destroyed", "klp_shadow") == 1
    assert shadow.variable("sum", "klp_shadow") == 41
    await on_shadow(shadow, "free", OBJ + 8)
    await shadow.settle()
    assert shadow.owners() == before
    assert shadow.log() == []


async def test_a_duplicate_shadow_variable_is_a_warning(shadow: Guest) -> None:
    await on_shadow(shadow, "alloc", OBJ, 41)
    assert await on_shadow(shadow, "alloc", OBJ, 42) == -1
    lines = shadow.log()
    assert any(line.startswith("Duplicate shadow variable <") for line in lines)
    assert any(line.startswith("WARNING: CPU: 0 PID:") for line in lines)
    assert await on_shadow(shadow, "get", OBJ, ID) == 41
    await on_shadow(shadow, "free", OBJ)


async def test_a_shadow_variable_that_cannot_be_constructed(shadow: Guest) -> None:
    before = shadow.owners()
    assert await on_shadow(shadow, "alloc", OBJ, -errno.ENOSPC) == -1
    assert await on_shadow(shadow, "get_or_alloc", OBJ, -errno.ENOSPC) == -1
    lines = shadow.klp_log()
    assert len(lines) == 2
    assert lines[0].startswith("Failed to construct shadow variable <")
    assert lines[0].endswith(f", {ID:x}> ({-errno.ENOSPC})")
    await shadow.settle()
    assert shadow.owners() == before


async def test_all_shadow_variables_of_an_id_at_once(shadow: Guest) -> None:
    before = shadow.owners()
    for i in range(50):
        assert await on_shadow(shadow, "alloc", OBJ + 64 * i, i) == i
    await on_shadow(shadow, "free_all", 1)
    assert shadow.variable("destroyed", "klp_shadow") == 50
    assert shadow.variable("sum", "klp_shadow") == sum(range(50))
    await on_shadow(shadow, "alloc", OBJ, 1)
    await on_shadow(shadow, "free_all", 0)
    assert shadow.variable("destroyed", "klp_shadow") == 50
    assert await on_shadow(shadow, "get", OBJ, ID) == -1
    await shadow.settle()
    assert shadow.owners() == before


async def test_a_shadow_variable_that_is_not_freed_shows(shadow: Guest) -> None:
    before = shadow.owners()
    await on_shadow(shadow, "alloc", OBJ, 1)
    await shadow.rmmod("klp_shadow")
    leaked = shadow.owners() - before
    assert leaked.total() == 1


async def test_a_constructor_that_dies(shadow: Guest) -> None:
    shadow.set("dying", 1, "klp_shadow")
    with pytest.raises(TaskExit):
        await on_shadow(shadow, "alloc", OBJ, 1)
    shadow.set("dying", 0, "klp_shadow")
    assert await on_shadow(shadow, "alloc", OBJ, 1) == 1


# -- system states --------------------------------------------------------------------------------

STATE_HEAD = """static int pre(struct klp_object *obj)
{
	struct klp_state *own = klp_get_state(&patch_, 1), *before = klp_get_prev_state(1);

	pr_info("own %u, before %u\\n", own ? own->version : 0, before ? before->version : 0);
	return 0;
}
"""


def state_source(version: int, *, replace: bool = True, id_: int = 1) -> str:
    head = "static struct klp_patch patch;\n" + STATE_HEAD.replace("patch_", "patch")
    return patch_source(
        {None: {}}, states=[(id_, version)], replace=replace, head=head,
        callbacks=".pre_patch = pre",
    )  # fmt: skip


async def test_states_go_from_patch_to_patch(guest: Guest, ko: Ko) -> None:
    for i, version in enumerate((1, 2, 2, 5)):
        await guest.insmod(ko(f"klp_{i}", state_source(version)))
    lines = [line.partition(": ")[2] for line in guest.log() if ": own" in line]
    assert lines == ["own 1, before 0", "own 2, before 1", "own 2, before 2", "own 5, before 2"]
    assert guest.installed() == ["klp_3"]


async def test_an_older_version_of_a_state_is_not_compatible(guest: Guest, ko: Ko) -> None:
    await guest.insmod(ko("klp_a", state_source(2)))
    guest.log()
    for name, source in {
        "klp_old": state_source(1),
        "klp_beside": state_source(1, replace=False),
        "klp_ignorant": patch_source({None: {}}, replace=True),
        "klp_other": state_source(9, id_=7),
    }.items():
        with refused(errno.EINVAL):
            await guest.insmod(ko(name, source))
        assert guest.klp_log() == [
            f"Livepatch patch ({name}) is not compatible with the already installed livepatches."
        ]
    await guest.insmod(ko("klp_apart", state_source(9, id_=7, replace=False)))
    await guest.insmod(ko("klp_none", patch_source({None: {}})))
    assert guest.installed() == ["klp_a", "klp_apart", "klp_none"]


async def test_klp_get_prev_state_outside_a_transition_is_a_warning(guest: Guest, ko: Ko) -> None:
    guest.log()
    for _ in range(2):
        assert await guest.call("klp_get_prev_state", 1, module=None) == 0
    warnings = [line for line in guest.log() if line.startswith("WARNING:")]
    assert len(warnings) == 1
    assert "kernel/livepatch/state.c:69 klp_get_prev_state" in warnings[0]
