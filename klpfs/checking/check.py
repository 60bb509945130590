# SPDX-License-Identifier: GPL-2.0-or-later
"""A pre-flight check of a live patch: does it load, apply and unload on a given kernel?

The patch is loaded into a private machine in virtual time, and goes through every step of its life
there. Nothing is guessed that can be tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import trio

from klpfs.checking.guest_call import GuestCall, guest_call
from klpfs.checking.inspection import check_imports, check_sections, check_vermagic
from klpfs.checking.report import Call, Report, Verdict
from klpfs.checking.steps import Steps, Stopped
from klpfs.machine.elf import SHF_RELA_LIVEPATCH, ElfError, ModuleImage
from klpfs.machine.image import Image
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func,
    klp_for_each_object,
    object_name,
)
from klpfs.machine.kernel.module.loaded import LoadedModule
from klpfs.machine.structs import Struct

_SLICE_INSTRUCTIONS = 100_000


def check(
    image: Image,
    patch: bytes,
    *,
    modules: Sequence[bytes] = (),
    calls: Sequence[str] = (),
    wait: float = 60.0,
) -> Report:
    """Try a live patch (the contents of a .ko file) on a kernel.

    ``modules``: the contents of modules to load before the patch.
    ``calls``: calls ``FUNCTION(ARGUMENT, ...)`` to run before the patch is loaded and again when it is
    enabled. Raise ValueError if one cannot be parsed.
    ``wait``: the guest seconds that a transition may take.
    """
    parsed = [guest_call(text) for text in calls]
    report = Report(calls=[Call(text) for text in calls])
    try:
        elf = ModuleImage.parse(patch)
    except ElfError as error:
        report.add("file", Verdict.BAD, "; ".join(error.lines) or str(error))
        return report
    if not elf.is_livepatch and image.abi != "3.20":
        detail = f'{elf.name} is not a live patch: it has no MODULE_INFO(livepatch, "Y")'
        report.add("file", Verdict.BAD, detail)
        return report
    trio.run(_Trial(image, elf, report, wait).run, patch, modules, parsed)
    return report


class _Trial:
    """A private machine, and the life of one patch on it."""

    def __init__(self, image: Image, elf: ModuleImage, report: Report, wait: float) -> None:
        self._clock = VirtualClock()
        self._kernel = Kernel(image, self._clock, slice_instructions=_SLICE_INSTRUCTIONS)
        self._elf = elf
        self._report = report
        self._steps = Steps(self._kernel, self._clock, report, wait)

    async def run(self, patch: bytes, modules: Sequence[bytes], calls: Sequence[GuestCall]) -> None:
        """Boot the machine, try the patch, and shut the machine down."""
        kernel = self._kernel
        try:
            async with trio.open_nursery() as nursery:
                await kernel.boot(nursery)
                with suppress(Stopped):
                    await self._try_patch(patch, modules, calls)
                nursery.cancel_scope.cancel()
        finally:
            kernel.close()

    async def _try_patch(
        self, patch: bytes, modules: Sequence[bytes], calls: Sequence[GuestCall]
    ) -> None:
        kernel, steps, name = self._kernel, self._steps, self._elf.name
        check_vermagic(kernel, self._elf, self._report)
        for module in modules:
            await self._load_module(module)
        check_imports(kernel, self._elf, self._report)
        check_sections(self._elf, self._report)
        for call, result in zip(calls, self._report.calls, strict=True):
            result.before = await self._call(call)
        allocated = self._allocations()
        loaded = await self._load_patch(patch)
        enabled = self._patch_of(loaded)
        if enabled is None:
            steps.stop("enable", Verdict.UNKNOWN, "the module's init function enables no patch")
        self._check_functions(enabled)
        await steps.wait_for_transition("enable")
        allocated_before_calls = self._allocations()
        for call, result in zip(calls, self._report.calls, strict=True):
            result.after = await self._call(call)
        allocated += self._allocations() - allocated_before_calls
        await steps.run("disable", lambda: self._disable(name))
        await steps.wait_for_transition("disable")
        await steps.run("unload", lambda: self._unload(loaded))
        await self._clock.advance(1)
        steps.add_fault("afterwards")
        self._check_memory(allocated)

    # -- loading and unloading --------------------------------------------------------------------

    async def _load_module(self, data: bytes) -> None:
        name = ModuleImage.parse(data).name
        await self._steps.run("module", lambda: self._kernel.modules.init_module(data), name)

    async def _load_patch(self, data: bytes) -> LoadedModule:
        modules, name = self._kernel.modules, self._elf.name
        await self._steps.run("load", lambda: modules.init_module(data), name)
        relocations = sum(
            bool(section.flags & SHF_RELA_LIVEPATCH) for section in self._elf.relocation_sections()
        )
        if relocations:
            detail = (
                f"{relocations} sections; those for modules that are not loaded are applied when "
                "these are"
            )
            self._report.add("klp relocations", Verdict.GOOD, detail)
        loaded = modules.find(name)
        assert loaded is not None
        return loaded

    async def _disable(self, name: str) -> None:
        """Write 0 to the patch's ``enabled`` file."""
        directory = self._kernel.kobjects.at(("kernel", "livepatch")).children[name]
        store = next(file.store for file in directory.attributes if file.name == "enabled")
        assert store is not None
        await store(b"0")

    async def _unload(self, module: LoadedModule) -> None:
        """Unload the module; report the tasks that still run its code afterwards."""
        regions, stack = module.regions, self._kernel.stack

        def in_module(address: int) -> bool:
            return any(region.base <= address < region.base + region.size for region in regions)

        inside = [task for task in self._kernel.sched if any(map(in_module, stack.walk(task)))]
        await self._kernel.modules.delete_module(module.name)
        for task in inside:
            # Without the module's unwind tables, a stack walk ends there: look at all words instead.
            if not task.ended.is_set() and any(in_module(word) for _, word in stack.words(task)):
                detail = f"{task.comm} still runs code of the module, which is unloaded"
                self._report.add("tasks", Verdict.BAD, detail)

    # -- functions --------------------------------------------------------------------------------

    def _patch_of(self, module: LoadedModule) -> Struct | None:
        for patch in self._kernel.livepatch.patches:
            if int(patch.mod) == module.struct.address_:
                return patch
        return None

    def _check_functions(self, patch: Struct) -> None:
        """Report how each function that the patch replaces was found."""
        space = self._kernel.computer.space
        for obj in klp_for_each_object(space, patch):
            name, is_loaded = object_name(obj), bool(obj.mod) or not obj.name
            for func in klp_for_each_func(space, obj):
                if is_loaded:
                    self._add_function(name, func)
                else:
                    detail = f"{name} is not loaded; give it with --module to try this"
                    subject = f"{name}:{func.old_name.string()}"
                    self._report.add(subject, Verdict.UNKNOWN, detail)

    def _add_function(self, object_: str, func: Struct) -> None:
        kernel, name = self._kernel, func.old_name.string()
        found = kernel.symbols.all_named(name, None if object_ == "vmlinux" else object_)
        site = kernel.ftrace.location(func.old_func)
        position = f"sympos {func.old_sympos} of {len(found)}" if len(found) > 1 else "unique"
        detail = f"{position}, at {int(func.old_func):#x}, ftrace site {site:#x}"
        self._report.add(f"{object_}:{name}", Verdict.GOOD, detail)

    # -- memory -----------------------------------------------------------------------------------

    def _allocations(self) -> Counter[str]:
        """Return the number of allocations by owner, without tasks."""
        held = Counter(entry.owner for entry in self._kernel.slab.allocations().values())
        del held["task_struct"]
        return held

    def _check_memory(self, expected: Counter[str]) -> None:
        leaked = self._allocations() - expected
        if leaked:
            detail = ", ".join(f"{count} allocated by {owner}" for owner, count in leaked.items())
            self._report.add("memory", Verdict.BAD, f"not freed: {detail}")
        else:
            self._report.add("memory", Verdict.GOOD, "everything was freed")

    # -- calls ------------------------------------------------------------------------------------

    async def _call(self, call: GuestCall) -> str:
        """Return the result of a call and what it printed to the log, or why it failed."""
        kernel = self._kernel
        address = kernel.symbols.lookup(call.function)
        if address is None:
            return "no such function"
        start, result = kernel.printk.next_seq, ""

        async def run() -> None:
            nonlocal result
            result = await call.run(kernel, address)

        # A call decides nothing about the patch: its findings become its result.
        findings = self._report.findings
        count = len(findings)
        try:
            await self._steps.run(f"call {call.function}", run)
        except Stopped:
            return findings[-1].detail
        else:
            faults = [each.detail for each in findings[count:] if each.verdict is not Verdict.GOOD]
            messages = [record.text for record in kernel.printk.records(start)]
            return "; ".join([result, *(faults or messages)])
        finally:
            del findings[count:]
