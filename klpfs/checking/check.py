# SPDX-License-Identifier: GPL-2.0-or-later
"""A pre-flight report on a live patch: will it load, apply and let go on that kernel?

Nothing is guessed that can be tried: the patch is loaded into a machine of its own, in virtual time, and
every step of its life is taken. What is found is a list of findings, each with a verdict.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn

import trio

from klpfs.checking import diagnosis
from klpfs.checking.guest_call import GuestCall, guest_call
from klpfs.checking.report import Call, Report, Verdict
from klpfs.machine.elf import SHF_RELA_LIVEPATCH, SHN_UNDEF, STB_WEAK, ElfError, ModuleImage
from klpfs.machine.image import Image
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.livepatch.objects import (
    klp_for_each_func,
    klp_for_each_object,
    object_name,
)
from klpfs.machine.kernel.module.load import UNREAD, LoadedModule
from klpfs.machine.kernel.module.version import ModVersions
from klpfs.machine.kernel.printk.printk import LOGLEVEL_WARNING, Record
from klpfs.machine.kernel.sched.core import TaskExit
from klpfs.machine.structs import Struct

_SLICE_INSTRUCTIONS = 100_000
_STEP = 0.1
"""Seconds of guest time between two looks at what goes on."""
_PATIENCE = 20.0
"""Seconds of real time for a step that does not get on at all."""
_PID = 1
_TROUBLE = (
    "BUG:", "kernel BUG", "WARNING: CPU", "general protection fault", "divide error", "invalid opcode",
)  # fmt: skip
"""Beginnings of the lines of the log that say what a fault is."""


class _Stop(Exception):
    """There is no going on; the finding that says why is in the report."""


def check(
    image: Image,
    patch: bytes,
    *,
    modules: Sequence[bytes] = (),
    calls: Sequence[str] = (),
    wait: float = 60.0,
) -> Report:
    """Try ``patch`` (the content of a .ko file) on ``image``.

    ``modules`` are loaded first: those that the patch is for. ``calls``: ``FUNCTION(ARGUMENT, ...)``, run
    before the patch is loaded and when it is enabled. ``wait``: so many seconds of guest time a
    transition may take. Raises ValueError for a call that cannot be read.
    """
    parsed = [guest_call(text) for text in calls]
    report = Report(calls=[Call(text) for text in calls])
    try:
        elf = ModuleImage.parse(patch)
    except ElfError as error:
        report.add("file", Verdict.BAD, "; ".join(error.lines) or str(error))
        return report
    if not elf.is_livepatch and image.abi != "3.20":
        report.add("file", Verdict.BAD, f"{elf.name} does not say that it is a live patch")
        return report
    trio.run(_Trial(image, elf, report, wait).run, patch, modules, parsed)
    return report


class _Trial:
    """A machine, and a patch that goes through its life there."""

    def __init__(self, image: Image, elf: ModuleImage, report: Report, wait: float) -> None:
        self._clock = VirtualClock()
        self._kernel = Kernel(image, self._clock, slice_instructions=_SLICE_INSTRUCTIONS)
        self._elf = elf
        self._report = report
        self._wait = wait
        self._seen = 0

    async def run(self, patch: bytes, modules: Sequence[bytes], calls: Sequence[GuestCall]) -> None:
        kernel = self._kernel
        try:
            async with trio.open_nursery() as nursery:
                await kernel.boot(nursery)
                with suppress(_Stop):
                    await self._life(patch, modules, calls)
                nursery.cancel_scope.cancel()
        finally:
            kernel.close()

    async def _life(
        self, patch: bytes, modules: Sequence[bytes], calls: Sequence[GuestCall]
    ) -> None:
        kernel, name = self._kernel, self._elf.name
        self._vermagic()
        for module in modules:
            await self._load("module", module)
        self._imports()
        self._sections()
        for call, result in zip(calls, self._report.calls, strict=True):
            result.before = await self._call(call)
        before = self._allocations()
        await self._load("load", patch)
        loaded = kernel.modules.find(name)
        assert loaded is not None
        enabled = self._patch_of(loaded)
        if enabled is None:
            self._stop("enable", Verdict.UNKNOWN, "its init enables no patch")
        self._functions(enabled)
        await self._transition("enable")
        enabled_with = self._allocations()
        for call, result in zip(calls, self._report.calls, strict=True):
            result.after = await self._call(call)
        before += self._allocations() - enabled_with  # the calls' own
        await self._step("disable", lambda: self._disable(name))
        await self._transition("disable")
        await self._step("unload", lambda: self._unload(loaded))
        await self._clock.advance(1)
        self._trouble("afterwards")
        self._leaks(before)

    def _stop(self, subject: str, verdict: Verdict, detail: str) -> NoReturn:
        self._report.add(subject, verdict, detail)
        raise _Stop

    # -- before it is loaded ----------------------------------------------------------------------

    def _vermagic(self) -> None:
        ours, theirs = self._kernel.image.vermagic, self._elf.modinfo.get("vermagic") or ""
        lines: list[str] = []
        versions = self._versions(lines)
        if not versions.same_magic(ours, theirs):
            detail = f"built for '{theirs.strip()}', this is '{ours.strip()}'"
            self._report.add("vermagic", Verdict.BAD, detail)
        elif theirs.split()[:1] != ours.split()[:1]:
            self._report.add(
                "vermagic", Verdict.UNKNOWN,
                f"built for {theirs.split()[0]}, this is {ours.split()[0]}: as the module has symbol "
                "versions it may load, but nothing says that the functions it replaces are the same",
            )  # fmt: skip
        else:
            self._report.add("vermagic", Verdict.GOOD, theirs.strip())

    def _versions(self, lines: list[str]) -> ModVersions:
        return ModVersions(self._elf, ignore=False, say=lines.append, force=lines.append)

    def _imports(self) -> None:
        """Every symbol that it wants, its version, and whether code of the kernel is behind it."""
        kernel, lines = self._kernel, list[str]()
        versions = self._versions(lines)
        loaded = {
            name: export for module in kernel.modules for name, export in module.exports.items()
        }
        wanted = [
            symbol for symbol in self._elf.symbols if symbol.shndx == SHN_UNDEF and symbol.name
        ]
        missing = [
            symbol.name
            for symbol in wanted
            if symbol.name not in kernel.exports
            and symbol.name not in loaded
            and symbol.bind != STB_WEAK
        ]
        agreeing = [
            versions.agree(symbol.name, kernel.exports[symbol.name])
            for symbol in wanted
            if symbol.name in kernel.exports
        ]
        if missing:
            self._report.add("symbols", Verdict.BAD, f"not exported: {', '.join(sorted(missing))}")
        else:
            self._report.add("symbols", Verdict.GOOD, f"{len(wanted)} imported, all are there")
        if not all(agreeing):
            self._report.add("modversions", Verdict.BAD, "; ".join(lines))
        elif versions.present:
            self._report.add("modversions", Verdict.GOOD, f"{len(agreeing)} agree")
        served = sorted({s.name for s in wanted} & kernel.services.bound)
        if served:
            self._report.add(
                "replacements", Verdict.NOTE,
                f"here, klpfs stands in for the kernel's own {', '.join(served)}",
            )  # fmt: skip

    def _sections(self) -> None:
        """Sections that a booted kernel would do more with."""
        unread = {section.name for section in self._elf.sections if section.size} & UNREAD
        if unread:
            detail = f"{', '.join(sorted(unread))}: for subsystems that do not run here"
            self._report.add("sections", Verdict.NOTE, detail)

    # -- steps ------------------------------------------------------------------------------------

    async def _load(self, subject: str, data: bytes) -> None:
        name = ModuleImage.parse(data).name if subject == "module" else self._elf.name
        relocations = sum(
            bool(section.flags & SHF_RELA_LIVEPATCH) for section in self._elf.relocation_sections()
        )
        await self._step(subject, lambda: self._kernel.modules.init_module(data), name)
        if subject == "load" and relocations:
            detail = f"{relocations} sections; those for modules that are not here come later"
            self._report.add("klp relocations", Verdict.GOOD, detail)

    async def _disable(self, name: str) -> None:
        directory = self._kernel.kobjects.at(("kernel", "livepatch")).children[name]
        store = next(file.store for file in directory.attributes if file.name == "enabled")
        assert store is not None
        await store(b"0")

    async def _unload(self, module: LoadedModule) -> None:
        """Whoever is in the module must have left it by the time that its exit is done."""
        memory, stack = module.regions, self._kernel.stack

        def in_module(address: int) -> bool:
            return any(region.base <= address < region.base + region.size for region in memory)

        inside = [task for task in self._kernel.sched if any(map(in_module, stack.walk(task)))]
        await self._kernel.modules.delete_module(module.name)
        for task in inside:
            # Without the module, a walk does not find through it any longer.
            if not task.ended.is_set() and any(in_module(word) for _, word in stack.words(task)):
                detail = f"{task.comm} is still in the module's code, which is gone"
                self._report.add("tasks", Verdict.BAD, detail)

    async def _step(
        self, subject: str, step: Callable[[], Awaitable[object]], detail: str = ""
    ) -> None:
        """Take a step as a process would, with time going on until it is done."""
        failure: BaseException | None = None
        finished, where = False, ""
        self._seen = self._kernel.printk.next_seq

        async def process() -> None:
            nonlocal failure, finished
            try:
                async with self._kernel.sched.user_task(_PID, "klpfs"):
                    await step()
            except (OSError, TaskExit) as error:
                failure = error
            finished = True

        with trio.move_on_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process)
                end = self._clock.now() + int(self._wait * 1e9)
                try:
                    while not finished and self._clock.now() < end:
                        await self._clock.advance(_STEP)
                finally:
                    where = self._whereabouts()
                nursery.cancel_scope.cancel()
        if not finished:
            self._stop(subject, Verdict.BAD, f"it does not come to an end; {where}")
        if isinstance(failure, TaskExit):
            self._died(subject)
        if isinstance(failure, OSError):
            number = failure.errno or errno.EIO
            complaints = self._complaints()
            for reason in diagnosis.reasons(self._kernel, complaints):
                self._report.add(reason.subject, Verdict.BAD, reason.detail)
            why = "; ".join(complaints) or str(failure)
            name = errno.errorcode.get(number, str(number))
            self._stop(subject, Verdict.BAD, f"{os.strerror(number)} ({name}): {why}")
        if not self._trouble(subject):
            self._report.add(subject, Verdict.GOOD, detail or "done")

    def _lines(self) -> Iterator[Record]:
        yield from self._kernel.printk.records(self._seen)

    def _complaints(self) -> list[str]:
        taints = ("taints kernel", "tainting kernel", "lock debugging")
        return [
            record.text
            for record in self._lines()
            if record.level <= LOGLEVEL_WARNING and not any(word in record.text for word in taints)
        ]

    def _died(self, subject: str) -> NoReturn:
        """The task that took the step has met its end: with an Oops."""
        self._trouble(subject)
        raise _Stop

    def _trouble(self, subject: str) -> bool:
        """An Oops or a WARN since the last look, of whatever task: the patch's own, or that of a kernel
        which was not booted?"""
        texts = [record.text for record in self._lines()]
        self._seen = self._kernel.printk.next_seq
        what = next((text for text in texts if text.startswith(_TROUBLE)), None)
        if what is None:
            return False
        place = next((text for text in texts if text.startswith("RIP: ")), "RIP: 0010:?")
        detail = f"{what}, in {place.removeprefix('RIP: 0010:')}"
        doubt = next((text for text in texts if text.startswith("klpfs: ")), "")
        if doubt:
            detail += f"; {doubt.removeprefix('klpfs: ')}"
        verdict = Verdict.UNKNOWN if doubt or what.startswith("WARNING") else Verdict.BAD
        self._report.add(subject, verdict, detail)
        return True

    # -- the patch --------------------------------------------------------------------------------

    def _patch_of(self, module: LoadedModule) -> Struct | None:
        for patch in self._kernel.livepatch.patches:
            if int(patch.mod) == module.struct.address_:
                return patch
        return None

    def _functions(self, patch: Struct) -> None:
        """Each function that it replaces: there, found for certain, and redirected?"""
        space = self._kernel.computer.space
        for obj in klp_for_each_object(space, patch):
            name = object_name(obj)
            for func in klp_for_each_func(space, obj):
                self._function(name, bool(obj.mod) or not obj.name, func)

    def _function(self, object_: str, there: bool, func: Struct) -> None:
        kernel, name = self._kernel, func.old_name.string()
        subject = f"{object_}:{name}"
        if not there:
            detail = f"{object_} is not loaded; give it with --module to try this"
            self._report.add(subject, Verdict.UNKNOWN, detail)
            return
        module = None if object_ == "vmlinux" else object_
        found = kernel.symbols.all_named(name, module)
        site = kernel.ftrace.location(func.old_func)
        position = f"sympos {func.old_sympos} of {len(found)}" if len(found) > 1 else "unique"
        self._report.add(
            subject, Verdict.GOOD, f"{position}, at {int(func.old_func):#x}, ftrace site {site:#x}"
        )

    async def _transition(self, way: str) -> None:
        """Let time go on until the transition is over."""
        kernel, start = self._kernel, self._clock.now()
        with trio.move_on_after(_PATIENCE):
            while kernel.livepatch.universes.patch is not None:
                if self._clock.now() - start > self._wait * 1e9:
                    break
                await self._clock.advance(_STEP)
        subject = f"{way}: transition"
        if kernel.livepatch.universes.patch is not None:
            detail = f"not over after {self._wait:g} s; {self._whereabouts()}"
            self._stop(subject, Verdict.BAD, detail)
        await self._clock.advance(_STEP)
        seconds = (self._clock.now() - start) / 1e9
        if not self._trouble(subject):
            self._report.add(subject, Verdict.GOOD, f"over in {seconds:.1f} s")

    def _whereabouts(self) -> str:
        """Where the tasks are that run code of the patch or of what it replaces."""
        kernel = self._kernel
        stuck = []
        for task in kernel.sched:
            frames = [
                kernel.symbols.sprint_backtrace(ip)
                for ip in kernel.stack.walk(task)
                if not kernel.sched.is_return(ip)
            ]
            if any("[" in frame for frame in frames):
                stuck.append(f"{task.comm} is in {' < '.join(frames[:4])}")
        return "; ".join(stuck) or "no task is in a module"

    # -- what is left behind ----------------------------------------------------------------------

    def _allocations(self) -> Counter[str]:
        held = Counter(entry.owner for entry in self._kernel.slab.allocations().values())
        del held["task_struct"]
        return held

    def _leaks(self, before: Counter[str]) -> None:
        more = self._allocations() - before
        if more:
            detail = ", ".join(f"{count} of {owner}" for owner, count in more.items())
            self._report.add("memory", Verdict.BAD, f"left allocated: {detail}")
        else:
            self._report.add("memory", Verdict.GOOD, "nothing is left allocated")

    # -- calls ------------------------------------------------------------------------------------

    async def _call(self, call: GuestCall) -> str:
        """What a function returns and prints, in words."""
        kernel = self._kernel
        address = kernel.symbols.lookup(call.function)
        if address is None:
            return "no such function"
        self._seen = kernel.printk.next_seq
        result = ""

        async def run() -> None:
            nonlocal result
            result = await call.run(kernel, address)

        finished = len(self._report.findings)
        try:
            await self._step(f"call {call.function}", run)
        except _Stop:
            result = self._report.findings[-1].detail
            return result
        finally:
            del self._report.findings[finished:]
        return "; ".join([result, *(record.text for record in self._lines())])
