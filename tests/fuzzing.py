# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing of all code that reads foreign data, for scripts/fuzz and test_fuzz.py.

A `Target` has valid inputs, and the errors that an invalid one may cause; `TARGETS` has them by name.
Any other exception of `Target.try_one` is a bug.
"""

from __future__ import annotations

import gc
import gzip
import io
import random
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
import vmlinux_maker

from klpfs.machine.btf import BtfError, Types
from klpfs.machine.elf import (
    SHF_RELA_LIVEPATCH,
    ElfError,
    Modinfo,
    ModuleImage,
    apply_relocations,
    layout,
)
from klpfs.machine.image import ImageError, distribution, embedded, kallsyms
from klpfs.machine.image.payload import open_vmlinux
from klpfs.machine.image.vmlinux import Vmlinux
from klpfs.machine.kernel.clock import VirtualClock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.sched.task import TaskExit
from klpfs.machine.limits import ListTooLong
from klpfs.machine.memory import MODULES_VADDR, PAGE_OFFSET, VMALLOC_START, PageFault

MEMORY = 32 << 20
LOCKUP_SECONDS = 30
"""The virtual time in seconds after which the watchdogs have ended every task that they can."""

_EHDR, _SHDR, _SYM, _RELA = 64, 64, 24, 24
_INTERESTING = (0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 4095, 4096, 4097, 0x7FFF, 0x8000,
                0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63,
                (1 << 64) - 1, (1 << 64) - 8, 0xDEAD000000000100, PAGE_OFFSET, MODULES_VADDR,
                0xFFFFFFFF81000000)  # fmt: skip

Regions = Sequence[tuple[int, int]]
"""The parts of an input, as start and end, where changes have the most effect."""


class Mutator:
    """Makes invalid inputs from valid ones. The seed decides which."""

    def __init__(
        self, corpus: Sequence[bytes], regions: Callable[[bytes], Regions], seed: int
    ) -> None:
        self._corpus = [(data, list(regions(data)) or [(0, len(data))]) for data in corpus]
        self._random = random.Random(seed)

    def next(self) -> bytes:
        """Return the next input."""
        pick = self._random
        original, regions = pick.choice(self._corpus)
        data = bytearray(original)
        for _ in range(pick.choice((1, 1, 1, 2, 3, 8))):
            start, end = pick.choice(regions) if pick.random() < 0.8 else (0, len(data))
            if start < min(end, len(data)):
                self._change(data, pick.randrange(start, min(end, len(data))))
        return bytes(data)

    def _change(self, data: bytearray, at: int) -> None:
        pick = self._random
        match pick.randrange(8):
            case 0:
                data[at] ^= 1 << pick.randrange(8)
            case 1:
                data[at] = pick.randrange(256)
            case 2 | 3 | 4:  # an integer, at a place where one may be
                size = pick.choice((2, 4, 8, 8))
                at &= -size
                value = pick.choice(_INTERESTING) + pick.choice((0, 0, 0, 1, -1))
                if pick.random() < 0.3:
                    value = len(data) + pick.randrange(-64, 65)
                data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
            case 5:  # a piece of it is copied to another place
                size = pick.choice((8, 24, 64))
                source = pick.randrange(len(data))
                data[at : at + size] = data[source : source + size]
            case 6:
                del data[at : at + pick.choice((1, 8, 24, 64, 4096))]
            case 7 if pick.random() < 0.3:
                del data[at:]
        if not data:
            data += b"\0"


class Target(ABC):
    """Code that reads foreign data."""

    name = ""
    inputs = 200
    """The number of inputs in the tests."""

    @abstractmethod
    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        """Return valid inputs, made from built ``modules``."""

    def regions(self, data: bytes) -> Regions:
        """Return the regions of an input to change."""
        return [(0, len(data))]

    @abstractmethod
    async def try_one(self, data: bytes) -> bool:
        """Return whether the input is accepted. Any exception is a bug."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager for all calls of `try_one`."""
        return _nothing()


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def elf_regions(data: bytes) -> Regions:
    """Return the ELF header, the section headers, and each section that the loader reads."""
    regions = [(16, _EHDR)] * 2
    shoff, shnum = struct.unpack_from("<40xQ12xH", data)[:2] if len(data) >= _EHDR else (0, 0)
    for i in range(min(shnum, 200)):
        at = shoff + i * _SHDR
        if at + _SHDR > len(data):
            break
        kind, flags, offset, size = struct.unpack_from("<4xIQ8xQQ", data, at)
        regions += [(at, at + _SHDR)] * 2
        if kind in (2, 3, 4) or flags & 2 and not flags & 4:  # tables, and data that is loaded
            regions.append((offset, offset + size))
    return regions


class Elf(Target):
    """The ELF reader, the layout and the relocations of a module, without a kernel."""

    name = "elf"
    inputs = 400

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return list(modules)

    def regions(self, data: bytes) -> Regions:
        return elf_regions(data)

    async def try_one(self, data: bytes) -> bool:
        try:
            image = ModuleImage.parse(data)
            symbols = image.symbols
            plan = layout(image)
            kinds = [image.kind(symbol) for symbol in symbols]
            core = [image.is_core(i) for i in range(len(symbols))]
            assert len(kinds) == len(core)
            values = [MODULES_VADDR + symbol.value for symbol in symbols]
            for section in image.relocation_sections():
                if section.info in plan.places and not section.flags & SHF_RELA_LIVEPATCH:
                    self._relocate(image, section, values)
        except ElfError as error:
            assert error.errno and error.lines
            return False
        return True

    def _relocate(self, image: ModuleImage, section: Any, values: list[int]) -> None:
        size = image.sections[section.info].size
        if size > MEMORY:
            return
        memory = bytearray(size)

        def read(at: int, count: int) -> bytes:
            start = at - MODULES_VADDR
            assert 0 <= start <= size - count
            return bytes(memory[start : start + count])

        def write(at: int, data: bytes) -> None:
            start = at - MODULES_VADDR
            assert 0 <= start <= size - len(data)
            memory[start : start + len(data)] = data

        relocations = image.relocations(section)
        apply_relocations(image.name, relocations, values, MODULES_VADDR, size, read, write)


class ModinfoTarget(Target):
    """The strings of .modinfo."""

    name = "modinfo"

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        images = [ModuleImage.parse(module) for module in modules]
        sections = [image.find_any(".modinfo") for image in images]
        return [bytes(section.data) for section in sections if section is not None]

    async def try_one(self, data: bytes) -> bool:
        info = Modinfo.parse(data)
        return info.get("license") is not None


class Btf(Target):
    """The type information: all types, with all of their properties."""

    name = "btf"
    inputs = 40

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return [embedded.load().btf]

    def regions(self, data: bytes) -> Regions:
        types = struct.unpack_from("<II", data, 8)
        return [(0, 24), (24 + types[0], 24 + types[0] + types[1])]

    async def try_one(self, data: bytes) -> bool:
        try:
            types = Types(data)
        except BtfError:
            return False
        accepted = True
        for name in ("struct task_struct", "struct klp_patch", "struct module", "size_t"):
            try:
                ctype = types[name]
                assert str(ctype) and ctype.size >= 0
                for member in ctype.members:
                    assert member.type.declare(member.name)
                    assert member.type.size >= 0 and member.type.fields is not None
                assert ctype.values is not None
            except (BtfError, LookupError):
                accepted = False
        return accepted


class VmlinuxTarget(Target):
    """A kernel image: the unpacked file and its sections."""

    name = "vmlinux"
    inputs = 60

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        vmlinux = embedded.build().read_bytes()
        return [vmlinux, gzip.compress(vmlinux), _bzimage(gzip.compress(vmlinux)), _bzimage(b"?")]

    def regions(self, data: bytes) -> Regions:
        return elf_regions(data) if data[:4] == b"\x7fELF" else [(0, 1024), (0, len(data))]

    async def try_one(self, data: bytes) -> bool:
        try:
            vmlinux = Vmlinux(open_vmlinux(io.BytesIO(data)))
            for section in vmlinux.sections:
                vmlinux.read(section.addr, min(64, section.size))
            assert isinstance(vmlinux.build_id(), str)
            assert all(isinstance(symbol.addr, int) for symbol in vmlinux.symbol_table())
            assert isinstance(vmlinux.data(".BTF"), bytes)
            assert isinstance(vmlinux.segments(), list)
        except ImageError:
            return False
        return True


def _bzimage(payload: bytes) -> bytes:
    """Return a bzImage with the header fields that are used, Documentation/arch/x86/boot.rst."""
    head = bytearray(2048)
    head[0x1F1] = 3
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x208] = b"HdrS\x0f\x02"
    size = struct.pack("<I", len(payload))
    head[0x248:0x250] = struct.pack("<II", 0, len(payload) + 4)
    return bytes(head) + payload + size


class DistributionTarget(Target):
    """The image of a distribution's kernel."""

    name = "distribution"
    inputs = 60

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return [
            vmlinux_maker.Kernel(layout=layout).vmlinux() for layout in vmlinux_maker.LAYOUTS[:6]
        ]

    def regions(self, data: bytes) -> Regions:
        return elf_regions(data)

    async def try_one(self, data: bytes) -> bool:
        try:
            image = distribution.read(Vmlinux(io.BytesIO(data)))
        except ImageError:
            return False
        assert image.symbols
        return True


class KallsymsTarget(Target):
    """The search for kallsyms tables in a kernel's read-only data."""

    name = "kallsyms"
    inputs = 30

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return [_kallsyms_tables([f"symbol_{i}" for i in range(600)])]

    async def try_one(self, data: bytes) -> bool:
        try:
            return kallsyms.find(data, 0xFFFFFFFF81000000) is not None
        except ImageError:
            return False


def _kallsyms_tables(names: list[str]) -> bytes:
    """Return the tables of scripts/kallsyms.c, with one character per token."""
    packed, starts = b"", []
    for i, name in enumerate(names):
        if i % 256 == 0:
            starts.append(len(packed))
        packed += bytes([len(name) + 1]) + b"T" + name.encode()
    tokens = [bytes([i]) if i else b"\x01" for i in range(256)]
    offsets = [sum(len(token) + 1 for token in tokens[:i]) for i in range(256)]

    def aligned(data: bytes) -> bytes:
        return data + bytes(-len(data) % 8)

    return b"".join(
        map(
            aligned,
            [
                bytes(64),
                struct.pack(f"<{len(names)}i", *(-1 - 16 * i for i in range(len(names)))),
                struct.pack("<Q", 0xFFFFFFFF81000000),
                struct.pack("<I", len(names)),
                packed,
                struct.pack(f"<{len(starts)}I", *starts),
                b"".join(token + b"\0" for token in tokens),
                struct.pack("<256H", *offsets),
                bytes(64),
            ],
        )
    )


# -- whole kernels --------------------------------------------------------------------------------


class GuestFault(Exception):
    """A service failed with an unexpected exception."""


class InKernel(Target):
    """A target that needs a kernel. A kernel that ran hostile code is not used again."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery
        self._power: trio.CancelScope | None = None
        self.kernel: Kernel

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self.new_kernel()
            try:
                yield
            finally:
                self._off()
                nursery.cancel_scope.cancel()

    def _off(self) -> None:
        if self._power is not None:
            self.kernel.power_off()
            self._power.cancel()
            self.kernel.close()
            self._power = None
            del self.kernel
            gc.collect()  # an emulator is large, and part of a reference cycle

    async def new_kernel(self) -> None:
        """Boot a new kernel."""
        self._off()
        self.kernel = Kernel(
            embedded.load(), VirtualClock(), memory_size=MEMORY, slice_instructions=20_000
        )
        self._power = await self._nursery.start(self._run)
        self._seen = self.kernel.printk.next_seq

    async def _run(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        kernel = self.kernel
        with trio.CancelScope() as power:
            async with trio.open_nursery() as nursery:
                await kernel.boot(nursery)
                await self._advance(0)
                task_status.started(power)
                await trio.sleep_forever()

    async def _advance(self, seconds: float) -> None:
        assert isinstance(self.kernel.clock, VirtualClock)
        await self.kernel.clock.advance(seconds)

    async def as_process(self, work: Callable[[], Any]) -> BaseException | None:
        """Do ``work`` in a task of the guest; return the exception that it raised, or None.

        A task that does not end is OSError(ETIME). Then the kernel cannot be used again.
        """
        outcome: list[BaseException | None] = []

        async def process() -> None:
            try:
                with self.kernel.entered():
                    async with self.kernel.fork.user_task(4242, "fuzz"):
                        await work()
                outcome.append(None)
            except (Exception, TaskExit) as error:
                outcome.append(error)

        self._nursery.start_soon(process)
        await self._advance(0)
        for _ in range(3):
            if outcome:
                break
            await self._advance(LOCKUP_SECONDS)
        if not outcome:
            await self.new_kernel()
            return TimeoutError("it goes on and on")
        return outcome[0]

    def log(self) -> list[str]:
        """Return the new lines of the log. Raise GuestFault if a service has failed."""
        lines = [record.text for record in self.kernel.printk.records(self._seen)]
        self._seen = self.kernel.printk.next_seq
        for line in lines:
            if line.startswith("kernel BUG at machine/"):
                raise GuestFault(line)
        return lines

    def state(self) -> Any:
        """Return the state that a module which is refused must not change."""
        kernel = self.kernel
        owners = Counter(allocation.owner for allocation in kernel.slab.allocations().values())
        return (
            owners,
            kernel.modules.names(),
            sum(1 for _ in kernel.symbols),
            sum(1 for _ in kernel.ftrace.sites()),
            [site.ip for site in kernel.ftrace.enabled_sites()],
            sorted(kernel.kobjects.at(("module",)).children),
            sorted(kernel.kobjects.at(("kernel", "livepatch")).children),
            kernel.base.bugs.tables[:],
            kernel.computer.modules_area.available,
            [task.comm for task in kernel.sched if not task.comm.startswith("kworker")],
        )


class Module(InKernel):
    """Loading and unloading of modules, without their init and exit."""

    name = "module"
    inputs = 120

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return list(modules)

    def regions(self, data: bytes) -> Regions:
        return elf_regions(data)

    async def new_kernel(self) -> None:
        await super().new_kernel()
        self._before = self.state()

    async def try_one(self, data: bytes) -> bool:
        modules = self.kernel.modules

        async def load() -> None:
            await modules.init_module(_without_init(data), "")
            for name in modules.names():
                await modules.delete_module(name, force=True)

        error = await self.as_process(load)
        lines = self.log()
        if isinstance(error, TaskExit):  # parameters run guest code
            await self.new_kernel()
            return False
        if error is not None and not isinstance(error, OSError):
            raise error
        if isinstance(error, TimeoutError):
            return False
        after = self.state()
        assert after == self._before, _difference(self._before, after)
        if error is not None:
            assert error.errno
            assert lines, f"refused without a word: {error}"
        return error is None


def _difference(before: Any, after: Any) -> str:
    return "; ".join(f"{a} became {b}" for a, b in zip(before, after, strict=True) if a != b)[:2000]


def _without_init(data: bytes) -> bytes:
    """Return a module without the relocations of its struct module: without init and exit."""
    with suppress(ElfError):
        image = ModuleImage.parse(data)
        for section in image.relocation_sections():
            if section.info == image.this_module:
                start = _offset(data, section.index)
                data = data[:start] + bytes(section.size) + data[start + section.size :]
    return data


def _offset(data: bytes, index: int) -> int:
    shoff = struct.unpack_from("<40xQ", data)[0]
    return int(struct.unpack_from("<24xQ", data, shoff + index * _SHDR)[0])


class Init(InKernel):
    """Invalid modules whose init runs. The guest may fail in any way, the host must not."""

    name = "init"
    inputs = 15

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return list(modules)

    def regions(self, data: bytes) -> Regions:
        image = ModuleImage.parse(data)
        loaded = [s for s in image.sections if s.flags & 2 and s.size and s.type != 8]
        return [(_offset(data, s.index), _offset(data, s.index) + s.size) for s in loaded]

    async def try_one(self, data: bytes) -> bool:
        async def load() -> None:
            await self.kernel.modules.init_module(data, "")

        error = await self.as_process(load)
        if not isinstance(error, TimeoutError):
            await self._advance(2)
        if error is not None and not isinstance(error, OSError | TaskExit):
            raise error
        self.log()
        assert isinstance(self.kernel.modules.proc_modules(), str)
        await self.new_kernel()
        return error is None


class Services(InKernel):
    """Every service, called with random arguments."""

    name = "services"
    inputs = 15
    _harmless = b"get_taint"
    _never = frozenset(
        {"kthread_exit", "do_exit", "kthread_complete_and_exit", "panic", "schedule", "yield"}
    )

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return [self._harmless, *(bytes([i] * 16) for i in range(8))]

    async def try_one(self, data: bytes) -> bool:
        pick = random.Random(data)
        kernel = self.kernel
        names = (
            ["get_taint"] if data == self._harmless else sorted(kernel.services.bound - self._never)
        )
        heap = kernel.slab.alloc(256, "fuzz")
        kernel.computer.memory.write(heap, pick.randbytes(64) + bytes(192))
        pool = [0, 1, 16, 4096, (1 << 64) - 1, heap, heap + 8, VMALLOC_START, PAGE_OFFSET + 0x2000, 1 << 40,
                0xFFFF800000001000, 0xDEAD000000000100, 0x7FFFFFFF, 0xFFFFFFFF,
                kernel.sched.idle.address, kernel.computer.symbol("linux_banner"),
                kernel.computer.symbol("get_taint"), *(task.address for task in kernel.sched)]  # fmt: skip

        async def call() -> None:
            for _ in range(4):
                name = pick.choice(names)
                arguments = [pick.choice(pool) for _ in range(6)]
                with suppress(OSError):
                    await kernel.sched.current.call(kernel.computer.symbol(name), *arguments)

        error = await self.as_process(call)
        # A service may have overwritten a struct that the end of a task needs.
        if error is not None and not isinstance(
            error, OSError | TaskExit | PageFault | ListTooLong
        ):
            raise error
        self.log()
        await self.new_kernel()
        return error is None


class Code(InKernel):
    """Random bytes as code, in ring 0."""

    name = "code"
    inputs = 20
    _start, _end = bytes.fromhex("554889e5"), bytes.fromhex("5dc3")

    def corpus(self, modules: Sequence[bytes]) -> list[bytes]:
        return [
            self._start + bytes.fromhex(middle) + self._end
            for middle in (
                "0f22d8",
                "0f30",
                "0f01f8",
                "cf",
                "0f07",
                "0f01d8",
                "f4",
                "e664",
                "cd80",
                "0faec3",
                "0f013424",
                "0f0014240f20c0",
                "48cb",
                "c8ffff00",
                "f30f1efa",
                "660f3881",
                "0f01c1",
                "0f09",
                "0f33",
                "f0",
                "6567",
                "d9e8",
                "c5f877",
                "0f05",
                "9d9c",
                "4889f8",
                "0fa2",
            )
        ]

    async def try_one(self, data: bytes) -> bool:
        kernel = self.kernel
        code = kernel.computer.map_pages(kernel.computer.modules_area, 4096, executable=True)
        kernel.computer.memory.write(code, data[:4096])

        async def run() -> None:
            await kernel.sched.current.call(code, code, 0x1000, 0x80, 0x7F, 1, 2)

        error = await self.as_process(run)
        if error is not None and not isinstance(error, OSError | TaskExit):
            raise error
        self.log()
        if error is not None:
            await self.new_kernel()
        assert kernel.computer.cpu.control_registers()["cr3"] == kernel.computer.memory.cr3
        return error is None


TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (
        Elf,
        ModinfoTarget,
        Btf,
        VmlinuxTarget,
        DistributionTarget,
        KallsymsTarget,
        Module,
        Init,
        Services,
        Code,
    )  # fmt: skip
}
"""All targets by name. New code that reads foreign data is added here."""


def modules_of(directory: Path) -> list[bytes]:
    """Return the modules in a directory, from which most inputs are made."""
    return [path.read_bytes() for path in sorted(directory.glob("**/*.ko"))]
