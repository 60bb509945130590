# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code, traps and tasks on a kernel in this process, beside unicorn alone."""

from __future__ import annotations

import ctypes
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import trio
import unicorn
from unicorn import x86_const as x86

from benchmarks.rows import Bench, Figure, Target, compare, in_trio, row
from klpfs.machine.image import embedded
from klpfs.machine.kernel.clock import Clock
from klpfs.machine.kernel.kernel import Kernel
from klpfs.machine.kernel.sched.core import Task
from klpfs.machine.memory import PAGE_SIZE, START_KERNEL_MAP, Memory, page_align


class Guest:
    """A kernel, and the actions of a process on it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    async def insmod(self, bench: Bench, name: str) -> None:
        """Load a module of the benchmark."""
        async with self.kernel.fork.user_task(1000, "insmod"):
            await self.kernel.modules.init_module((bench.modules / f"{name}.ko").read_bytes())

    def symbol(self, name: str) -> int:
        """Return the address of a symbol of the kernel or of a module. Raises LookupError."""
        symbols = self.kernel.symbols
        for module in (None, *self.kernel.modules.names()):
            address = symbols.lookup(name, module)
            if address is not None:
                return address
        raise LookupError(name)

    async def seconds(self, name: str, count: int) -> float:
        """Call a function with the argument ``count``, and return the seconds that it takes."""
        function = self.symbol(name)
        async with self.kernel.fork.user_task(1001, "bench") as task:
            start = time.perf_counter()
            await task.call(function, count)
            return time.perf_counter() - start


@asynccontextmanager
async def booted(memory_size: int = 256 << 20) -> AsyncIterator[Guest]:
    """Boot the embedded kernel; switch it off at the end."""
    kernel = Kernel(embedded.load(), Clock(), memory_size=memory_size)
    try:
        async with trio.open_nursery() as nursery:
            await kernel.boot(nursery)
            yield Guest(kernel)
            nursery.cancel_scope.cancel()
    finally:
        kernel.close()


class Bare:
    """unicorn with real page tables, some pages of memory, and nothing else."""

    def __init__(self) -> None:
        self.memory = memory = Memory(32 << 20)
        self.uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._ram = (ctypes.c_char * memory.size).from_buffer(memory.ram)
        uc.mem_map_ptr(0, memory.size, unicorn.UC_PROT_ALL, ctypes.addressof(self._ram))
        uc.reg_write(x86.UC_X86_REG_CR3, memory.cr3)
        uc.reg_write(x86.UC_X86_REG_CR4, 0x6A0)
        uc.msr_write(0xC0000080, 0xD01)
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80010033)
        self._stack = self.add_page(START_KERNEL_MAP)
        self._halt = START_KERNEL_MAP + PAGE_SIZE
        self.add_page(self._halt, b"\xf4")

    def add_page(self, address: int, data: bytes = b"") -> int:
        """Map pages with ``data`` at a virtual address, and return it."""
        size = page_align(max(len(data), 1))
        paddr = self.memory.alloc_pages(size)
        self.memory.map(address, paddr, size, writable=True, executable=True)
        self.memory.write(address, data)
        return address

    def seconds(self, function: int, count: int) -> float:
        """Call a function with the argument ``count``, and return the seconds that it takes."""
        top = self._stack + PAGE_SIZE - 16
        self.memory.write(top, self._halt.to_bytes(8, "little"))
        self.uc.reg_write(x86.UC_X86_REG_RSP, top)
        self.uc.reg_write(x86.UC_X86_REG_RDI, count)
        start = time.perf_counter()
        self.uc.emu_start(function, 0)
        return time.perf_counter() - start


async def turns(
    bench: Bench, ours: Callable[[], Awaitable[float]], reference: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Run both once to warm up, then in turns, and return the results of both."""
    await ours(), reference()
    pairs = [(await ours(), reference()) for _ in range(bench.repetitions)]
    return [a for a, _ in pairs], [b for _, b in pairs]


# Speed


@row("guest")
def guest(bench: Bench) -> Iterator[Figure]:
    """The same code, byte for byte at the same addresses, on the kernel and on unicorn alone."""
    yield from in_trio(_guest, bench)


async def _guest(bench: Bench) -> AsyncIterator[Figure]:
    async with booted() as ours:
        await ours.insmod(bench, "bench_guest")
        module = ours.kernel.modules.find("bench_guest")
        assert module is not None
        bare = Bare()
        read = ours.kernel.computer.memory.read
        for page in range(module.core_base, module.core_base + module.core_size, PAGE_SIZE):
            bare.add_page(page, read(page, PAGE_SIZE))
        for name, count in (("calls", 4_000_000), ("loops", 40_000_000), ("memory", 10_000_000)):
            function = ours.symbol(f"bench_{name}")
            count = bench.size(count, count // 100)
            pairs = await turns(
                bench,
                partial(ours.seconds, f"bench_{name}", count),
                partial(bare.seconds, function, count),
            )
            mine, theirs = ([seconds / count * 1e9 for seconds in column] for column in pairs)
            reference = {"bare unicorn": (theirs, Target(1 / 0.95))}
            for figure in compare(f"guest: {name}", "ns", mine, reference):
                yield figure


# Traps


@row("trap")
def trap(bench: Bench) -> Iterator[Figure]:
    """A function of the kernel that Python replaces; the reference is a hook that does nothing."""
    yield from in_trio(_trap, bench)


async def _trap(bench: Bench) -> AsyncIterator[Figure]:
    bare = Bare()
    bare.uc.hook_add(unicorn.UC_HOOK_INSN, lambda *_: None, None, 1, 0, x86.UC_X86_INS_OUT)
    # again: out %al, $0x10; jmp .+2; dec %rdi; jnz again; ret
    loop = bare.add_page(START_KERNEL_MAP + 16 * PAGE_SIZE, bytes.fromhex("e610eb0048ffcf75f7c3"))
    count = bench.size(30_000, 1000)
    async with booted() as ours:
        await ours.insmod(bench, "bench_guest")
        for name, traps in (("kmalloc", 2), ("printk", 1)):
            pairs = await turns(
                bench,
                partial(ours.seconds, f"bench_{name}", count // traps),
                partial(bare.seconds, loop, count),
            )
            mine, theirs = ([seconds / count * 1e6 for seconds in column] for column in pairs)
            reference = {"bare out hook": (theirs, Target(3))}
            for figure in compare(f"trap: {name}", "us", mine, reference):
                yield figure


# Tasks


@row("switch")
def switch(bench: Bench) -> Iterator[Figure]:
    """Two tasks that call schedule() in turns."""
    yield from in_trio(_switch, bench)


async def _switch(bench: Bench) -> AsyncIterator[Figure]:
    count = bench.size(5_000, 200)
    bare = Bare()

    def save_and_restore() -> float:
        context = bare.uc.context_save()
        start = time.perf_counter()
        for _ in range(2 * count):
            context = bare.uc.context_save()
            bare.uc.context_restore(context)
        return time.perf_counter() - start

    async with booted() as ours:
        await ours.insmod(bench, "bench_guest")
        function = ours.symbol("bench_yield")

        async def main(task: Task) -> int:
            return await task.call(function, count)

        async def both() -> float:
            start = time.perf_counter()
            tasks = [ours.kernel.fork.create_kthread("bench", main) for _ in range(2)]
            for task in tasks:
                await task.ended.wait()
            return time.perf_counter() - start

        pairs = await turns(bench, both, save_and_restore)
        mine, theirs = ([seconds / (2 * count) * 1e6 for seconds in column] for column in pairs)
        reference = {"save and restore": (theirs, Target(10))}
        for figure in compare("task switch", "us", mine, reference):
            yield figure
