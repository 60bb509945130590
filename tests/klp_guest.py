# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without a mount, in virtual time, for the tests of the livepatch core.

`Guest` has the operations of a user and the checks of invariants. `patch_source` writes patches.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from klpfs.machine.image import embedded
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.kobject import KobjAttribute, Kobject
from klpfs.machine.kernel.livepatch.consistency.universe import KLP_UNDEFINED, TIF_PATCH_PENDING
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func,
    klp_for_each_object,
    object_name,
)
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.structs import Struct

U64 = (1 << 64) - 1

Funcs = Mapping[str, int | str]
"""The functions of an object: the return value of the new version, or its body. ``name,2`` is the
second function of that name."""


def patch_source(
    objects: Mapping[str | None, Funcs],
    *,
    replace: bool = False,
    states: Iterable[tuple[int, int]] = (),
    head: str = "",
    callbacks: str = "",
    init: str = "return klp_enable_patch(&patch);",
    info: str = "Y",
    consistency: str = "",
) -> str:
    """Return the source of a patch for objects (None is vmlinux).

    ``states`` are ids and versions. ``callbacks`` are those of the first object. ``head`` is code
    that they and the bodies need.
    """
    text, objs = [], []
    for i, (name, funcs) in enumerate(objects.items()):
        entries = []
        for j, (function, version) in enumerate(funcs.items()):
            old_name, _, sympos = function.partition(",")
            body = f"barrier(); return {version};" if isinstance(version, int) else version
            text.append(f"static noinline int new_{i}_{j}(void)\n{{\n\t{body}\n}}\n")
            entries.append(
                f'{{ .old_name = "{old_name}", .new_func = new_{i}_{j}, .old_sympos = {sympos or 0} }},'
            )
        text.append(f"static struct klp_func funcs_{i}[] = {{ {' '.join(entries)} {{ }} }};\n")
        quoted = f'"{name}"' if name else "NULL"
        own = f", .callbacks = {{ {callbacks} }}" if callbacks and not i else ""
        objs.append(f"{{ .name = {quoted}, .funcs = funcs_{i}{own} }},")
    state_list = "".join(f"{{ .id = {id_}, .version = {version} }}, " for id_, version in states)
    return f"""// SPDX-License-Identifier: GPL-2.0-or-later
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/delay.h>
#include <linux/livepatch.h>
#include <linux/module.h>
{head}
{"".join(text)}
static struct klp_state states[] = {{ {state_list}{{ }} }};
static struct klp_object objs[] = {{ {" ".join(objs)} {{ }} }};
static struct klp_patch patch = {{
	.mod = THIS_MODULE, .objs = objs, .states = states, .replace = {str(replace).lower()},
}};
static int __init patch_init(void)
{{
	{init}
}}
static void __exit patch_exit(void)
{{
}}
module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "{info}");
{f'MODULE_INFO(klp_consistency, "{consistency}");' if consistency else ""}
"""


class Call:
    """A call of a guest function in its own task, which may sleep."""

    def __init__(self, guest: Guest, function: int, arguments: tuple[int, ...]) -> None:
        self.returned: int | None = None

        async def main(task: Task) -> int:
            value = await task.call(function, *(argument & U64 for argument in arguments))
            self.returned = _signed(value)
            return 0

        self.task = guest.kernel.fork.create_kthread("caller", main)


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)


class Guest:
    """The operations of a user. Methods that can wait run in their own process."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.space = kernel.computer.space
        self._pid = 1000
        self._seen = kernel.printk.next_seq

    @asynccontextmanager
    async def process(self, comm: str = "bash") -> AsyncIterator[Task]:
        self._pid += 1
        async with self.kernel.fork.user_task(self._pid, comm) as task:
            yield task

    # -- modules ----------------------------------------------------------------------------------

    async def insmod(self, module: Path | bytes, arguments: str = "") -> None:
        data = module if isinstance(module, bytes) else module.read_bytes()
        async with self.process("insmod"):
            await self.kernel.modules.init_module(data, arguments)
        await self.settle()

    async def rmmod(self, name: str, *, force: bool = False) -> None:
        async with self.process("rmmod"):
            await self.kernel.modules.delete_module(name, force=force)

    def symbol(self, name: str, module: str | None = "klp_target") -> int:
        address = self.kernel.symbols.lookup(name, module)
        assert address is not None, name
        return address

    async def call(self, name: str, *arguments: int, module: str | None = "klp_target") -> int:
        async with self.process() as task:
            address = self.symbol(name, module)
            return _signed(await task.call(address, *(argument & U64 for argument in arguments)))

    async def versions(self, *names: str) -> list[int]:
        return [await self.call(name) for name in names]

    async def start(self, name: str, *arguments: int, module: str | None = "klp_target") -> Call:
        call = Call(self, self.symbol(name, module), arguments)
        await self.settle()
        return call

    def variable(self, name: str, module: str = "klp_target") -> int:
        return _signed(self.space.read_u32(self.symbol(name, module)))

    def set(self, name: str, value: int, module: str = "klp_target", *, size: int = 1) -> None:
        """Store in a variable of ``size`` bytes."""
        self.kernel.computer.memory.write(self.symbol(name, module), value.to_bytes(size, "little"))

    # -- sysfs, time, log -------------------------------------------------------------------------

    def kobject(self, path: str = "") -> Kobject:
        here: Kobject = self.kernel.kobjects.at(("kernel", "livepatch"))
        for name in filter(None, path.split("/")):
            if name not in here.children:
                raise FileNotFoundError(errno.ENOENT, path)
            here = here.children[name]
        return here

    def attribute(self, path: str) -> KobjAttribute:
        directory, _, name = path.rpartition("/")
        return next(file for file in self.kobject(directory).attributes if file.name == name)

    async def read(self, path: str) -> str:
        show = self.attribute(path).show
        assert show is not None
        async with self.process("cat"):
            text = show()
            return (text if isinstance(text, str) else await text).strip()

    async def write(self, path: str, text: str | int) -> None:
        store = self.attribute(path).store
        assert store is not None
        async with self.process("echo"):
            await store(str(text).encode())
        await self.settle()

    def installed(self) -> list[str]:
        """Return the names of the directories of patches, the oldest patch first."""
        return list(self.kobject().children)

    async def settle(self) -> None:
        await self.advance(0)

    async def advance(self, seconds: float) -> None:
        assert isinstance(self.kernel.clock, VirtualClock)
        await self.kernel.clock.advance(seconds)

    def log(self) -> list[str]:
        """Return the new lines of the log."""
        lines = [record.text for record in self.kernel.printk.records(self._seen)]
        self._seen = self.kernel.printk.next_seq
        return lines

    def klp_log(self) -> list[str]:
        """Return the new lines of the livepatch core."""
        prefix = "livepatch: "
        return [line.removeprefix(prefix) for line in self.log() if line.startswith(prefix)]

    # -- invariants -------------------------------------------------------------------------------

    def owners(self) -> Counter[str]:
        """Return the number of allocations by caller, without those of tasks."""
        owners = Counter(entry.owner for entry in self.kernel.slab.allocations().values())
        del owners["task_struct"]
        return owners

    def check(self) -> None:
        """Check all invariants. Nothing but a transition may be in progress."""
        self._check_tree()
        self._check_ops()
        self._check_tasks()
        mutex = self.space.view("struct mutex", self.symbol("klp_mutex", None))
        assert mutex.owner.counter == 0, "klp_mutex is held"

    def patches(self) -> list[Struct]:
        return list(self.kernel.livepatch.patches)

    def functions(self) -> Iterable[tuple[Struct, Struct, Struct]]:
        """Yield every function of every installed patch, with its patch and its object."""
        for patch in self.patches():
            for obj in klp_for_each_object(self.space, patch):
                for func in klp_for_each_func(self.space, obj):
                    yield patch, obj, func

    def _check_tree(self) -> None:
        tree: dict[str, dict[str, list[str]]] = {}
        for patch in self.patches():
            name = patch.mod.name.string()
            tree[name] = {object_name(o): [] for o in klp_for_each_object(self.space, patch)}
            module = self.kernel.modules.find(name)
            assert module is not None
            own = 1 if module.struct.state == 1 else 0  # MODULE_STATE_COMING: by its loader
            assert module.refcount == 1 + own
        for patch, obj, func in self.functions():
            functions = tree[patch.mod.name.string()][object_name(obj)]
            functions.append(f"{func.old_name.string()},{func.old_sympos or 1}")
            assert func.patched == obj.patched
            assert obj.patched == (not obj.name or bool(obj.mod))
        root = self.kobject()
        assert list(root.children) == list(tree)
        for name, objects in tree.items():
            assert {
                child.name: sorted(child.children)
                for child in root.children[name].children.values()
            } == {name: sorted(functions) for name, functions in objects.items()}

    def _check_ops(self) -> None:
        space, ftrace = self.space, self.kernel.ftrace
        stacked: Counter[int] = Counter()
        sites = {}
        head = self.symbol("klp_ops", None)
        for ops in space.list_entries(head, "struct klp_ops", "node"):
            stack = list(
                space.list_entries(
                    ops.member_address_("func_stack"), "struct klp_func", "stack_node"
                )
            )
            [old_func] = {int(func.old_func) for func in stack}
            stacked.update(func.address_ for func in stack)
            sites[ftrace.location(old_func)] = [ops.member_address_("fops")]
            found = self.kernel.livepatch.functions.klp_find_ops(old_func)
            assert found is not None and found.address_ == ops.address_
        assert {site.ip: site.ops for site in ftrace.enabled_sites()} == sites
        assert stacked == Counter(func.address_ for _, _, func in self.functions() if func.patched)
        if not stacked:
            assert not {"klp_ops", "ftrace_hash", "livepatch"} & set(self.owners())

    def _check_tasks(self) -> None:
        universes = self.kernel.livepatch.universes
        tasks = [*self.kernel.sched, self.kernel.sched.idle]
        if universes.patch is None:
            assert universes.target_state == KLP_UNDEFINED
            assert {task.struct.patch_state for task in tasks} == {KLP_UNDEFINED}
            assert not any(task.struct.thread_info.flags & TIF_PATCH_PENDING for task in tasks)
            assert not any(func.transition for _, _, func in self.functions())
        else:
            assert {task.struct.patch_state for task in tasks} <= {0, 1}
            assert all(
                func.transition == (patch.address_ == universes.patch.address_)
                for patch, _, func in self.functions()
            )


@asynccontextmanager
async def booted(*, clock: VirtualClock | None = None, **options: Any) -> AsyncIterator[Guest]:
    """Boot a kernel and return its `Guest`; shut it down at the end."""
    kernel = Kernel(embedded.load(), clock or VirtualClock(), **options)
    async with trio.open_nursery() as nursery:
        await kernel.boot(nursery)
        guest = Guest(kernel)
        await guest.settle()
        yield guest
        nursery.cancel_scope.cancel()
    kernel.close()
